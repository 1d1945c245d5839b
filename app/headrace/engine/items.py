"""The work of one batch as values: an item per record, with its outcome."""

from __future__ import annotations

from enum import Enum
from typing import Any

from headrace.envelope import Envelope
from headrace.event import EventType
from headrace.handlers.subscription import Handler
from headrace.log.ports import Record


class Outcome(Enum):
    """What becomes of a record. The value is the `reason` in metrics and dead letters."""

    READY = "ready"
    APPLIED = "applied"
    DUPLICATE_ID = "duplicate_id"
    DUPLICATE_OFFSET = "duplicate_offset"
    UNHANDLED = "unhandled"
    HANDLER_ERROR = "handler_error"
    BEHIND_KEY = "behind_key"
    PROCESS_KILLED = "process_killed"
    DATA_REFUSED = "data_refused"
    DECODE = "decode"
    SCHEMA = "schema"
    UNKNOWN_TYPE = "unknown_type"
    GAVE_UP = "gave_up"


SKIPPED = frozenset({Outcome.DUPLICATE_ID, Outcome.DUPLICATE_OFFSET, Outcome.UNHANDLED})
PARKED = frozenset({Outcome.HANDLER_ERROR, Outcome.BEHIND_KEY, Outcome.PROCESS_KILLED, Outcome.DATA_REFUSED})
DEAD = frozenset({Outcome.DECODE, Outcome.SCHEMA, Outcome.UNKNOWN_TYPE, Outcome.GAVE_UP})


class Item:
    """One record on its way through a batch. Fields past `record` are set as far as the record could be read."""

    __slots__ = (
        "envelope",
        "error",
        "event",
        "event_type",
        "handler",
        "identity",
        "key",
        "number",
        "outcome",
        "record",
    )

    def __init__(self, record: Record, outcome: Outcome = Outcome.READY) -> None:
        self.record = record
        self.outcome = outcome
        self.envelope: Envelope = NO_ENVELOPE
        self.event_type: EventType | None = None
        self.event: Any = None
        self.handler: Handler | None = None
        self.identity = b""
        self.key: str | None = None
        self.error: BaseException | None = None
        self.number = 0
        """Its place in the lane, for an item of a lane."""

    @property
    def is_named(self) -> bool:
        """True where the envelope could be read."""
        return self.envelope is not NO_ENVELOPE


NO_ENVELOPE = Envelope(id="-", source="-", type="-")
