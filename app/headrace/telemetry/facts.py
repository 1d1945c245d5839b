"""What the engine hands to the tracer: plain values, so that tracing knows nothing of the engine.

Times are nanoseconds since the epoch. An `error_type` is a class name or one of a few words, never a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple


class EventLink(NamedTuple):
    """One event as a span points to it: its trace, its place in the log if it is there already, and its outcome."""

    traceparent: str | None
    tracestate: str | None
    event_id: str
    offset: int | None
    outcome: str


class HandlerCall(NamedTuple):
    """One call of a handler that gets a span of its own (`Tracing.wants_call`)."""

    handler: str
    event: EventLink
    started_ns: int
    ended_ns: int
    error_type: str | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended_ns - self.started_ns) / 1e9


class BatchFacts(NamedTuple):
    """One finished batch: what it took, how it ended, and when.

    `error_type` says what went wrong (`parked`, `FencedError`, ...). The commit lasts from `commit_ns` to `ended_ns`;
    a batch without `commit_ns` was not committed.
    """

    subscription: str
    topic: str
    partition: int
    epoch: int
    first_offset: int
    last_offset: int
    started_ns: int
    ended_ns: int
    links: Sequence[EventLink]
    applied: int = 0
    skipped: int = 0
    parked: int = 0
    rows: int = 0
    commit_ns: int | None = None
    calls: Sequence[HandlerCall] = ()
    error_type: str | None = None
    links_dropped: int = 0
    """Sampled events that `links` leaves out."""
    calls_dropped: int = 0
    """Calls that `calls` leaves out."""


class EventFacts(NamedTuple):
    """One event that entered its key's lane, left it, was given up on, or was emitted by a timer that fired."""

    operation: Literal["park", "release", "dead_letter", "timer"]
    subscription: str
    topic: str
    event: EventLink
    at_ns: int
    error_type: str | None = None
    attempt: int | None = None
    waited_seconds: float | None = None


class CallFacts(NamedTuple):
    """One run of an effect's call; `waited_seconds` passed since the log took its event in."""

    effect: str
    subscription: str
    topic: str
    event: EventLink
    started_ns: int
    attempt: int
    waited_seconds: float


class EmitFacts(NamedTuple):
    """One emitted event that reached the log; `source` is the event whose handler emitted it."""

    subscription: str
    topic: str
    source: EventLink
    event_id: str
    started_ns: int
    ended_ns: int
