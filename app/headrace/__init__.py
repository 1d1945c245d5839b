"""Headrace: events for FastAPI teams. Typed, in order per key, applied exactly once in Postgres.

The way of an event, with the folders it passes:

```
 producers ──HTTP──▶ ingest/ ──▶ log/ ──▶ engine/ ──▶ handlers/ ──▶ state/ and the ledger: one transaction
                  cloudevents/    ▲      (claims, batches, lanes)          │
                                  └───────────── emits/ ◀──────────────────┤ dead_letters/
                                                        queries/ ◀─────────┘
```
`publishing/` and `outbox/` are the ways in for code: a route, a task, a script; `store/` keeps streams of events, and
`aggregates/` what is made of them. `platform.py` is what a team declares,
`runtime.py` what runs, `settings/` what can be set, `errors.py` what can go wrong. `telemetry/` and `http/` stand
beside the flow; under it are `database/` and `sql/`, all queries on Headrace's own tables.

The names below are imported when one of them is first asked for (`names.py`), so that the command line can let a first
start's database be made meanwhile. Those of `headrace.event` are there at once: that module would hide the decorator.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from headrace.event import Event, event, upcast
from headrace.version import VERSION

if TYPE_CHECKING:
    from headrace.names import *
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module("headrace.names"), name)


__version__ = VERSION

__all__ = [
    "Aggregate",
    "CallNext",
    "Caller",
    "DeadLetter",
    "Emit",
    "Envelope",
    "Event",
    "Handling",
    "Headrace",
    "HeadraceError",
    "HeadraceWarning",
    "InSequence",
    "Latest",
    "Outbox",
    "Published",
    "Publisher",
    "Record",
    "Retry",
    "Skip",
    "State",
    "States",
    "Step",
    "Subscription",
    "Table",
    "Tasks",
    "Transaction",
    "Window",
    "__version__",
    "applies",
    "event",
    "keep",
    "require",
    "upcast",
]
