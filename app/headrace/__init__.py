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
"""

from headrace.aggregates.aggregate import Aggregate, applies
from headrace.envelope import Envelope
from headrace.errors import HeadraceError, HeadraceWarning
from headrace.event import Event, event, upcast
from headrace.handlers.inject import Emit, State, States, Step, Table, Transaction
from headrace.handlers.middleware import CallNext, Handling
from headrace.handlers.subscription import Subscription
from headrace.handlers.verdicts import DeadLetter, Retry, Skip
from headrace.http.caller import Caller
from headrace.http.guard import require
from headrace.keeping import keep
from headrace.log.ports import Record
from headrace.order.declared import InSequence, Latest
from headrace.outbox.dependency import Outbox
from headrace.platform import Headrace
from headrace.publishing.dependency import Publisher
from headrace.publishing.publisher import Published
from headrace.publishing.tasks import Tasks
from headrace.version import VERSION
from headrace.windows.kept import Window

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
