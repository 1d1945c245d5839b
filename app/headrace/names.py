"""The public names that take a while to import, FastAPI and what is built on it: `headrace` gives them when asked."""

from headrace.aggregates.aggregate import Aggregate, applies
from headrace.envelope import Envelope
from headrace.errors import HeadraceError, HeadraceWarning
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
from headrace.windows.kept import Window

__all__ = [
    "Aggregate",
    "CallNext",
    "Caller",
    "DeadLetter",
    "Emit",
    "Envelope",
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
    "applies",
    "keep",
    "require",
]
