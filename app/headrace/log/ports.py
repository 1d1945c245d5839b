"""The log port: what every log (memory, embedded, Kafka) promises to producers and consumers.

A record is bytes at a position (topic, partition, offset). Offsets of a partition grow strictly and may skip
(compaction, aborted transactions, commit markers). A log knows nothing of progress: where a subscription stands is in
its claim, in Postgres.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

Headers = Sequence[tuple[str, bytes | None]]
"""Names and values; Kafka knows null values."""


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class Position(NamedTuple):
    """Where a record stands in the log."""

    topic: str
    partition: int
    offset: int


class Bounds(NamedTuple):
    """The offsets that a partition holds: `begin` <= offset < `end` (for Kafka: the last stable offset)."""

    begin: int
    end: int


class NewRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to be published; its partition follows from its key (murmur2), without a key it is spread evenly."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Record(Protocol):
    """A record that was read. aiokafka's own ConsumerRecord fits, so that nothing is copied on the hot path."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch, when the log took the record in."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """The record of the logs that are ours."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class TopicInfo(NamedTuple):
    """What the log says of a topic. `log_id` names the cluster (or the embedded database) that holds it."""

    topic: str
    partitions: int
    log_id: str


class Reader(Protocol):
    """Reads one or more partitions from positions that the caller names; belongs to no consumer group."""

    async def fetch(self, max_records: int, timeout_seconds: float) -> dict[TopicPartition, list[Record]]:
        """Return the next records, in offset order per partition; empty after the timeout.

        Shape: 0 to max_records records in all; only records not returned before. Aborted records are never returned.
        Cancel: not safe; close the reader afterwards.
        Raises: LogMismatchError when a position is no longer (or not yet) in the log; TransportError when the log is
        away (the reader must be closed and made anew from the caller's own positions).
        """
        ...

    def position(self, partition: TopicPartition) -> int:
        """Return the offset that the next fetch starts at: past the last returned record and any hole behind it."""
        ...

    async def close(self) -> None:
        """Let go of connections. Never raises."""
        ...


class Membership(Protocol):
    """One process's seat in a consumer group: it says which partitions are this process's, and reads nothing."""

    async def start(self) -> None:
        """Join; returns at once where the log is away (joining goes on in the background)."""
        ...

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the log the next offsets, for lag tools only. Best effort: never raises, ignores foreign partitions."""
        ...

    async def stop(self) -> None:
        """Leave the group. Does not call the listener. Never raises."""
        ...

    @property
    def is_joined(self) -> bool:
        """True once the group was joined or is being waited for."""
        ...


class AssignmentListener(Protocol):
    """Told of the partitions that come and go. Neither method may raise."""

    async def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """The partitions leave: finish the work in flight and let the claims go before returning."""
        ...

    async def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """The partitions that are this process's from now on (all of them). Returns at once."""
        ...


class Log(Protocol):
    """A log. Every implementation passes `headrace.testing.conformance.log_suite`."""

    system: str
    """OpenTelemetry's `messaging.system`: memory, headrace, kafka."""

    async def start(self) -> None:
        """Connect. Raises: TransportError (away: try again), ConfigurationError (wrong password, TLS, address)."""
        ...

    async def stop(self) -> None:
        """Flush what was taken, disconnect. Never raises."""
        ...

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append the records and return their positions, in the order given, once they are kept.

        Kept: on `acks=all` (Kafka), after the commit is on disk (embedded). Records of one partition keep their order.
        Concurrent calls share batches or commits. All or nothing only where the log has one commit (embedded, memory).
        Raises: TransportError: not acknowledged, the outcome is unknown; publishing the same events again is safe,
        since their ids are recognised. LogMismatchError: a topic does not exist. RecordTooLargeError: the log takes no
        record of this size, now or later.
        """
        ...

    async def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """Return what exists of the named topics. Raises: TransportError."""
        ...

    async def create(self, topic: str, partitions: int) -> None:
        """Create the topic; nothing happens where it exists. Raises: TransportError, ConfigurationError (refused)."""
        ...

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Return the offsets that each partition holds now. Raises: TransportError."""
        ...

    async def reader(self, positions: Mapping[TopicPartition, int]) -> Reader:
        """Return a reader that starts at the given offsets. Raises: TransportError."""
        ...

    def membership(self, group: str, topics: Sequence[str], listener: AssignmentListener) -> Membership:
        """Return a seat in the group; topics are co-partitioned: partition n of each goes to the same member."""
        ...
