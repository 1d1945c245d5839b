"""The errors of Headrace, as a tree by what to do next.

```
HeadraceError
├── ConfigurationError      refuse to start; a person must change a setting
│   ├── LogMismatchError    the log is not the one the claim was made on: refuse the partition, never guess
│   └── StepRemovedError    open sagas wait for a step that is gone: refuse the partition, or they wait for ever
├── TransportError          the log did not answer: keep the offset, try again
│   └── SchemaRegistryError the schema registry did not: decode the same records again
├── SchemaNotFetchedError   a decoder lacks a schema: fetch it, decode the same records again
├── StateError              Postgres
│   ├── ConflictError       another writer changed a row: reload and run the batch again at once
│   │   └── VersionConflictError  a stream of the event store has moved on: load it again, repeat the change
│   ├── StateUnavailableError  no connection, deadlock, serialisation: back off, run the batch again
│   │   └── BatchTooLargeError    Postgres timed out or ran out of memory: run the batch again with fewer events
│   └── DataRefusedError    the database refused the data: find the one event and park it
├── EventError              the event's own fault: a dead letter
│   ├── DecodeError         the bytes are not an event
│   ├── UnknownTypeError    the event's type is not declared
│   ├── SchemaError         the data do not fit the event type
│   ├── SequenceGapError    events before it are missing: hold it, then go on or give it up, as the order says
│   └── RecordTooLargeError the log takes no record of this size
├── HandlerError            a team's handler raised (`__cause__`): park the event
└── FencedError             another owner holds the claim: stop
```

Facts are attributes; the message is one sentence that says what, where and what to try.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Literal


class HeadraceError(Exception):
    """The root. `str(error)` is one sentence for a person."""


class ConfigurationError(HeadraceError):
    """A setting, a declaration or an installation is wrong; starting would do harm."""


class LogMismatchError(ConfigurationError):
    """The log does not continue at the claim's next offset (retention, re-creation, truncation, repartitioning)."""


class StepRemovedError(ConfigurationError):
    """Open sagas wait for a step that the code does not declare any more."""


class TransportError(HeadraceError):
    """The log could not be reached or did not acknowledge; the outcome of a publish may be unknown."""


class SchemaRegistryError(TransportError):
    """The schema registry is away, refuses us, or does not have a schema yet."""


class SchemaNotFetchedError(HeadraceError):
    """Records cannot be decoded before `fetch`, which returns when their schemas are known."""

    def __init__(self, schemas: Collection[Any], fetch: Callable[[Collection[Any]], Awaitable[None]]) -> None:
        super().__init__(f"{len(schemas)} schemas are to be fetched first.")
        self.schemas = frozenset(schemas)
        self._fetch = fetch

    async def fetch(self) -> None:
        """Fetch the schemas. Raises: SchemaRegistryError."""
        await self._fetch(self.schemas)

    def joined(self, others: Collection[SchemaNotFetchedError]) -> SchemaNotFetchedError:
        """Return one error for this one and others of the same registry."""
        return SchemaNotFetchedError(self.schemas.union(*(each.schemas for each in others)), self._fetch)


class StateError(HeadraceError):
    """Something about Postgres."""


class ConflictError(StateError):
    """A row was changed by another writer since it was read."""


class VersionConflictError(ConflictError):
    """A stream of the event store is not at the version that an append expects."""

    def __init__(self, stream: str, key: str, expected: int, actual: int) -> None:
        super().__init__(
            f"the stream {stream!r} of {key!r} is at version {actual}, not {expected}: another writer was faster; load "
            "it again, and repeat the change."
        )
        self.stream = stream
        self.key = key
        self.expected = expected
        self.actual = actual


class StateUnavailableError(StateError):
    """Postgres cannot be reached or asks to try again."""


class BatchTooLargeError(StateUnavailableError):
    """A transaction took too long or too much memory. `reason` is "timeout" or "memory"."""

    def __init__(self, message: str, reason: Literal["timeout", "memory"] = "timeout") -> None:
        super().__init__(message)
        self.reason = reason


class DataRefusedError(StateError):
    """Postgres refused the data of a transaction (an integrity or data error)."""


class EventError(HeadraceError):
    """The event itself is at fault. `reason` is the label used in metrics and dead letters."""

    reason = "decode"


class DecodeError(EventError):
    """The bytes are not a CloudEvent."""

    reason = "decode"


class UnknownTypeError(EventError):
    """The event's type is not declared on this platform."""

    reason = "unknown_type"


class SchemaError(EventError):
    """The data do not fit the event type. `details` holds one entry per fault, JSON-ready."""

    reason = "schema"

    def __init__(self, message: str, details: list[dict[str, object]] | None = None) -> None:
        super().__init__(message)
        self.details = details or []


class SequenceGapError(EventError):
    """Events that come before this one in its key's sequence are missing; `expected` is the number of the next."""

    reason = "gap"

    def __init__(self, message: str, expected: int) -> None:
        super().__init__(message)
        self.expected = expected


class RecordTooLargeError(EventError):
    """The event is larger than the log takes; publishing it again cannot help."""

    reason = "too_large"


class HandlerError(HeadraceError):
    """A handler raised; the team's exception is the `__cause__`."""

    def __init__(self, message: str, handler: str) -> None:
        super().__init__(message)
        self.handler = handler


class FencedError(HeadraceError):
    """The claim's epoch, offset or token is no longer ours: another owner is at work."""


class HeadraceWarning(UserWarning):
    """A declaration that works, but gives up one of the platform's promises; the text says which, and what to write."""
