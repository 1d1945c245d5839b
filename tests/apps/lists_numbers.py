"""When and for which numbers the service `lists` does something; the crash machine's checkers know them as well."""

from __future__ import annotations

REMIND_SECONDS = 1.0
"""After which a timer is due."""
EARLIER, EARLIER_SECONDS = 4, 2.0
"""Each fourth echo is about a time so long ago: most of these come too late for their window."""
HEARD = 5
"""Of each fifth echo, the handler of lists emits something."""
RAISING, FAILING = 20, 8
"""Echoes with such numbers make a list raise in its first runs in a process, and mails fail in the first."""
