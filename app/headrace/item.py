"""The work of one batch as values: one item for each record, with its outcome."""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from headrace.cloudevents.structured import read_structured
from headrace.envelope import Envelope
from headrace.event import EventType
from headrace.handlers.subscription import Handler
from headrace.log.ports import Record


class Outcome(Enum):
    """What becomes of a record. The value is the `reason` in metrics and dead letters."""

    READY = "ready"
    APPLIED = "applied"
    DUPLICATE_ID = "duplicate_id"
    CONFLICTING_ID = "conflicting_id"
    UNHANDLED = "unhandled"
    HANDLER_ERROR = "handler_error"
    BEHIND_KEY = "behind_key"
    PROCESS_KILLED = "process_killed"
    DATA_REFUSED = "data_refused"
    SLOW = "slow"
    DECODE = "decode"
    SCHEMA = "schema"
    UNKNOWN_TYPE = "unknown_type"
    GAVE_UP = "gave_up"
    PERMANENT = "permanent"
    ASKED = "asked"
    SKIPPED_BY_HANDLER = "skipped_by_handler"
    STALE = "stale"
    HELD = "held"
    GAP = "gap"

    __hash__ = object.__hash__  # Enum's own is a Python function, called for every item that is counted


APPLIED = frozenset({Outcome.APPLIED})
SKIPPED = frozenset(
    {
        *(Outcome.DUPLICATE_ID, Outcome.CONFLICTING_ID, Outcome.UNHANDLED),
        *(Outcome.SKIPPED_BY_HANDLER, Outcome.STALE),
    }
)
PARKED = frozenset(
    {
        *(Outcome.HANDLER_ERROR, Outcome.BEHIND_KEY, Outcome.PROCESS_KILLED),
        *(Outcome.DATA_REFUSED, Outcome.SLOW, Outcome.HELD),
    }
)
GIVEN_UP = frozenset({Outcome.GAVE_UP, Outcome.PERMANENT, Outcome.ASKED, Outcome.GAP})
"""These dead letters could be read, and a handler has them: their identity is known from then on."""
DEAD = frozenset({Outcome.DECODE, Outcome.SCHEMA, Outcome.UNKNOWN_TYPE}) | GIVEN_UP


NO_ENVELOPE = Envelope(id="-", source="-", type="-")


class Item(msgspec.Struct, gc=False, eq=False):
    """One record on its way through a batch. The fields after `record` are set as far as the record could be read.

    The garbage collector does not track items, since a batch makes thousands. So `error` is kept without its traceback,
    whose frames would refer to the item (`failed`).
    """

    record: Record
    outcome: Outcome = Outcome.READY
    known_envelope: Envelope | None = NO_ENVELOPE
    """None: it is plain, and is read when somebody asks for it."""
    event_type: EventType | None = None
    event: Any = None
    handler: Handler | None = None
    identity: bytes = b""
    mark: int = 0
    """Its offset and, in the lowest 32 bits, the CRC-32 of its data; of a duplicate, those of the first event."""
    key: str | None = None
    is_sampled: bool = False
    """True if its trace is kept."""
    error: BaseException | None = None
    number: int = 0
    """The item's place in its lane; 0 for an item of the log."""
    attempt: int = 1
    """The number of this run of the event, from 1."""
    place: int | None = None
    """Where the order of its key has it; None in a subscription without one."""
    blamed: tuple[Outcome, BaseException] | None = None
    """How it ends without a run if its turn has come, since a run ended its process, hung, or was refused; only in a
    subscription with an order. If its turn has not come, its handler was not called, and it is not to blame."""
    wait_is_over: bool = False
    """True if it was held, and the events before it have been missing for as long as it may wait."""
    is_let_go: bool = False
    """True if an operator lets its key go on without them, whatever the subscription does at the end of the wait."""

    @property
    def envelope(self) -> Envelope:
        """The attributes of the event; NO_ENVELOPE if they could not be read."""
        if self.known_envelope is None:
            self.known_envelope = read_structured(self.record.value or b"")
        return self.known_envelope

    @property
    def is_named(self) -> bool:
        """True if the envelope could be read."""
        return self.known_envelope is not NO_ENVELOPE

    def blame(self, outcome: Outcome, error: BaseException) -> None:
        """Fail the record for what its run did; if it has an order, once it is known that its turn has come."""
        if self.handler is None or self.handler.order is None:
            self.failed(outcome, error)
        else:
            self.blamed = outcome, error

    def failed(self, outcome: Outcome, error: BaseException) -> None:
        """Set the outcome of the record and the error that explains it."""
        self.outcome = outcome
        self.error = error
        cause: BaseException | None = error
        seen: set[int] = set()  # `raise error from error` makes a circle
        while cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            cause.__traceback__ = None
            cause = cause.__cause__
