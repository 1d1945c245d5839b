"""Which numbers of the service `lists` do something besides; the checkers of the crash machine know them as well."""

from __future__ import annotations

HEARD = 5
"""Of each fifth echo, the handler of lists emits something."""
RAISING, FAILING = 20, 8
"""Echoes with such numbers make a list raise in its first runs in a process, and mails fail in the first."""
