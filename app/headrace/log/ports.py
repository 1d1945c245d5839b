"""The log port: what every log (memory, embedded, Kafka) promises to producers and consumers.

A record is bytes at a position (topic, partition, offset). Offsets of a partition grow strictly and may skip
(compaction, aborted transactions, commit markers). A log knows nothing of progress: that is in a
subscription's claims, in Postgres.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple, Protocol
from urllib.parse import quote

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


def position_of(record: Record) -> Position:
    """Return where a record that was read stands."""
    return Position(record.topic, record.partition, record.offset)


def positions_of(topic: str, partition: int, offsets: Iterable[int]) -> Iterator[Position]:
    """Return the positions of records of one partition, for half of the time that it takes to make each by its name."""
    return map(tuple.__new__, repeat(Position), zip(repeat(topic), repeat(partition), offsets, strict=False))


def position_text(position: Position) -> str:
    """Return the position as HTTP names it: `topic/partition/offset`, the topic percent-encoded."""
    topic, partition, offset = position
    return f"{_partition_text(topic, partition)}/{offset}"


@lru_cache(4_096)  # to ask and to quote costs twice as much as to write an offset
def _partition_text(topic: str, partition: int) -> str:
    return f"{quote(topic, safe='')}/{partition}"


class Bounds(NamedTuple):
    """The offsets that a partition holds: a reader can return those with `begin` <= offset < `end`.

    `end` is the last stable offset: reading stops there. Records from `end` up to `high`, the high watermark, wait for
    a transaction that is still open; they are pending, too. In logs without transactions `high` equals `end`.
    """

    begin: int
    end: int
    high: int


class NewRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to be published; its partition follows from its key (murmur2), without a key it is spread evenly."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Record(Protocol):
    """A record that was read."""

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
    headers: Headers


def alone(record: Record) -> StoredRecord:
    """Return the record with bytes of its own: one that was read in C keeps the whole Kafka batch that it came in."""
    place = record.topic, record.partition, record.offset, record.timestamp
    return StoredRecord(*place, record.key, record.value, record.headers)


class TopicInfo(NamedTuple):
    """What the log says of a topic. `log_id` names the cluster (or the embedded database) that holds it.

    A topic that is created again has another `topic_id`; None if the log gives topics no ids of their own.
    """

    topic: str
    partitions: int
    log_id: str
    topic_id: str | None = None


class Reader(Protocol):
    """Reads one or more partitions from positions that the caller names; belongs to no consumer group."""

    async def fetch(
        self, max_records: int, max_bytes: int, timeout_seconds: float
    ) -> dict[TopicPartition, list[Record]]:
        """Return the next records, in offset order per partition; empty if none came before the timeout.

        Shape: at most max_records records in all. If there is a record, at least one is returned, whatever its size;
        further ones only as long as the sum of all keys and values, and 64 bytes for each header, is at most max_bytes.
        No record is returned twice, and no record of an aborted transaction ever.
        Units: records, bytes, seconds of waiting.
        Cancel: not safe; records may be lost to this reader. Close it and open another one at your own positions.
        Raises: LogMismatchError if the log no longer (or not yet) holds a position; TransportError if the log is away.
        After either, close the reader and open another one at your own positions.
        Source: Kafka protocol guide, Fetch API.
        """
        ...

    def position(self, partition: TopicPartition) -> int:
        """Return the offset that the next fetch starts at: past the last returned record and any gap behind it."""
        ...

    async def close(self) -> None:
        """Disconnect. Never raises.

        Cancel: safe; connections that are still open then are closed when the reader is garbage.
        """
        ...


class Membership(Protocol):
    """One process's seat in a consumer group: it says which partitions are this process's, and reads nothing."""

    async def start(self) -> None:
        """Join the group in the background; return at once, even if the log is away.

        Cancel: safe.
        """
        ...

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the log the next offsets, for lag tools only. Never raises; ignores partitions of other members.

        Cancel: safe; the log may or may not have the offsets.
        """
        ...

    async def stop(self) -> None:
        """Leave the group without calling the listener; return when the others have divided what it had. Never raises.

        Units: as long as the other members, if there are any, take to hear of it and to share it, but no more than five
        heartbeats or five seconds; at most about fifteen seconds if the brokers do not answer.
        Cancel: the group may not be told; then the others wait for the session timeout.
        """
        ...

    @property
    def is_joined(self) -> bool:
        """True once the group was joined or is being waited for."""
        ...

    @property
    def is_alone(self) -> bool:
        """True if nobody is known who could take the partitions over."""
        ...


class AssignmentListener(Protocol):
    """Told of the partitions that come and go. No method may raise. Calls never overlap."""

    async def lost(self, partitions: Iterable[TopicPartition]) -> None:
        """The seat is lost, and the partitions with it: finish the work in flight and release the claims.

        Cancel: only when the membership is stopped.
        """
        ...

    async def rebalancing(self) -> None:
        """The group divides the partitions anew: go on with what is claimed, and claim nothing. Return at once.

        Only a member that has partitions is told. `assigned` follows, or `lost`. Meanwhile another member may have been
        given the partitions.
        Cancel: only when the membership is stopped.
        """
        ...

    async def assigned(self, partitions: Iterable[TopicPartition], *, was_removed: bool = False) -> None:
        """The partitions that are this process's from now on (all of them); others that it has go to other members.

        Return at once: no heartbeats are sent meanwhile. In the background, finish the work in flight on those that
        leave, and release their claims: their next owners wait for that. `was_removed` says that the group took this
        member for dead since the last time, and others may have had the partitions meanwhile.
        Shape: usually the same numbers of every topic; while members with different topics are in the group, a number
        may be missing for some of the topics, because another member has it.
        Cancel: only when the membership is stopped.
        """
        ...

    async def refused(self, reason: str) -> None:
        """Members of another identity are in the group; `reason` is a sentence for a person. Return at once.

        Called before `assigned` when the conflict is seen first, whenever the reason changes, and with "" when it is
        over. Only members of one of the identities get partitions meanwhile; all members are told.
        Cancel: only when the membership is stopped.
        """
        ...


class Log(Protocol):
    """A log. Every implementation passes `headrace.testing.conformance.log_suite`."""

    system: str
    """OpenTelemetry's `messaging.system`: memory, headrace, kafka."""

    async def start(self) -> None:
        """Connect.

        Cancel: safe; start it again, or stop it.
        Raises: TransportError (the log is away: try again), ConfigurationError (wrong password, TLS, address).
        """
        ...

    async def stop(self) -> None:
        """Send or write what publish() has taken, then disconnect. Never raises.

        Units: at most about ten seconds; what is not kept by then fails with TransportError.
        Cancel: safe; what was not kept fails with TransportError.
        """
        ...

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append the records and return their positions, in the order given, once they are kept.

        Shape: one position for each record. Records of one partition keep their order. Concurrent calls share batches
        or commits, and a call that fails does not fail the others. A partition in trouble fails only the calls that
        have records for it; others are delayed by it at most once. All or nothing only if the log has one commit
        (embedded, memory).
        Kept means: by all in-sync replicas, `acks=all` (Kafka); after the commit is on disk (embedded).
        Cancel: safe for the others; the outcome of the cancelled call is unknown, as after a TransportError.
        Raises: TransportError if a record was not acknowledged. The outcome is unknown; publish the same events again:
        their ids are recognised. LogMismatchError if a topic does not exist; nothing of the call was sent if the log
        knew that before. RecordTooLargeError if the log takes no record of that size, now or later: if the size check
        before sending finds it (HEADRACE_KAFKA_MAX_RECORD_BYTES), nothing of the call was sent; if only the broker
        refuses it (the topic's max.message.bytes), that record is not kept, and the others of the call may be. A call
        with a single record that raises it names the record, so a caller can publish halves until it has found it.
        """
        ...

    async def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """Return what exists of the named topics; never creates one.

        Cancel: safe.
        Raises: TransportError.
        """
        ...

    async def create(self, topic: str, partitions: int) -> None:
        """Create the topic; nothing happens if it exists. This is the only verb that creates topics.

        Cancel: safe; the topic may or may not exist afterwards.
        Raises: TransportError, ConfigurationError (refused).
        """
        ...

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Return the offsets that each partition holds now.

        Shape: a partition whose leader does not answer within a few seconds is missing from `in`, `items()` and
        `get()`, and looking it up by `[]` raises TransportError; the others have their answers.
        Cancel: safe.
        Raises: TransportError if no partition has an answer; LogMismatchError if a topic or partition does not exist.
        Source: Kafka protocol guide, ListOffsets API.
        """
        ...

    async def offset_at(self, partition: TopicPartition, milliseconds: int) -> int:
        """Return the offset of the first record whose time is this one or later; the partition's end if none is.

        Records' times may go back: what counts is the first one, whatever the times behind it.
        Cancel: safe.
        Raises: TransportError; LogMismatchError if the topic or partition does not exist.
        Source: Kafka protocol guide, ListOffsets API.
        """
        ...

    async def reader(self, positions: Mapping[TopicPartition, int]) -> Reader:
        """Return a reader that starts at the given offsets. An offset that the log does not hold fails the first fetch.

        Cancel: safe; nothing stays open.
        Raises: TransportError, ConfigurationError, LogMismatchError (no such topic).
        """
        ...

    def membership(self, group: str, topics: Sequence[str], listener: AssignmentListener, identity: str) -> Membership:
        """Return a seat in the group.

        Topics are co-partitioned: partition n of all topics goes to one member that subscribes to all of them, if there
        is one. `identity` is a short text that names service and database. Members of two identities never share the
        partitions of a group, and all of them are told by `refused`. "" counts as the identity of the others.
        """
        ...
