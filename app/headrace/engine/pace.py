"""How often the engine does what it does by the clock."""

from __future__ import annotations

from typing import NamedTuple


class Pace(NamedTuple):
    """Intervals in seconds. Tests hand in shorter ones; a team sets none of them."""

    fetch: float = 0.5
    """The longest wait for records, and so for noticing a pause."""
    target: float = 2.0
    """A run of handlers ends after this, so that locks are short and a stop waits for one short transaction."""
    patience: float = 0.5
    """So long a batch waits for one call, if few calls take longer: then the event runs in its key's lane."""
    watch: float = 1.0
    """Between two looks at the database: pause, replays, claims that went back."""
    gauge: float = 5.0
    """Between two looks at the log's ends, for lag."""
    supervise: float = 0.5
    """Between two looks at how long handlers have been running."""
    mark: float = 1.0
    """Emits that are in the log are noted in the claim at least this often when no batch does it."""
