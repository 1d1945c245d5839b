"""Who lends a database to a platform on the memory log, whose data are thrown away with it: a test run's server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

Lender: TypeAlias = Callable[[], Awaitable[tuple[str, Callable[[], Awaitable[object]]]]]
"""Returns the address of an empty database of the platform's own, and what gives it back."""

lender: Lender | None = None
"""None: each platform makes a server of its own, which takes about a second."""
