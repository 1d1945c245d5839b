"""The brokers: what partitions hold, for every process of a simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from headrace.errors import TransportError
from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord, Position, StoredRecord, TopicPartition
from headrace.log.refusals import no_such_topic
from tests.simulation.clock import BEGIN_UNIX_SECONDS
from tests.simulation.loop import Loop


@dataclass
class Partition:
    """One partition: a place for each offset. What is None there is no record: aborted, or a marker."""

    places: list[StoredRecord | None] = field(default_factory=list)
    aborted: dict[int, StoredRecord] = field(default_factory=dict)
    """What an aborted transaction wrote at an offset; nobody may read it."""
    open_since: int | None = None
    """The first offset of a transaction that is still open: nothing from there on can be read."""
    readers: list[asyncio.Event] = field(default_factory=list)

    @property
    def stable_end(self) -> int:
        """Return the last stable offset."""
        return len(self.places) if self.open_since is None else self.open_since

    def wake(self) -> None:
        """Tell the readers that there is more to read."""
        for event in self.readers:
            event.set()


class Broker:
    """All topics. `latency` draws the seconds that a message takes."""

    def __init__(self, loop: Loop, latency: Callable[[], float], chance: Random) -> None:
        self._loop = loop
        self.latency = latency
        self.chance = chance
        self.topics: dict[str, list[Partition]] = {}
        self.is_down = False
        self.before_append: Callable[[Sequence[NewRecord]], None] = lambda records: None
        self.failing = 0.0
        """How often a publish fails, with or without effect."""

    def partition(self, place: TopicPartition) -> Partition:
        """Return one partition. Raises: LogMismatchError."""
        if place.topic not in self.topics:
            raise no_such_topic(place.topic)
        return self.topics[place.topic][place.partition]

    def append(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append records, each to its partition."""
        self.before_append(records)
        return [self._append(record) for record in records]

    def _append(self, record: NewRecord) -> Position:
        partitions = self.topics[record.topic]
        number = partition_for(record.key or b"", len(partitions))
        partition = partitions[number]
        offset = len(partition.places)
        partition.places.append(self._stored(record, number, offset))
        if partition.open_since is None:
            partition.wake()
        return Position(record.topic, number, offset)

    def _stored(self, record: NewRecord, partition: int, offset: int) -> StoredRecord:
        return StoredRecord(
            topic=record.topic,
            partition=partition,
            offset=offset,
            timestamp=int((BEGIN_UNIX_SECONDS + self._loop.time()) * 1000),
            key=record.key,
            value=record.value,
            headers=tuple(record.headers),
        )

    def abort(self, place: TopicPartition, records: Sequence[NewRecord]) -> None:
        """Leave what an aborted transaction leaves: offsets that hold no record for a reader, and its marker."""
        partition = self.partition(place)
        for record in records:
            offset = len(partition.places)
            partition.aborted[offset] = self._stored(record, place.partition, offset)
            partition.places.append(None)
        partition.places.append(None)
        if partition.open_since is None:
            partition.wake()

    def hold(self, place: TopicPartition, seconds: float) -> None:
        """Keep what is appended from now on from being read: a transaction is open in front of it."""
        partition = self.partition(place)
        if partition.open_since is None:
            partition.open_since = len(partition.places)
            partition.places.append(None)
            self._loop.outside(seconds, self._end_hold, partition)

    def _end_hold(self, partition: Partition) -> None:
        partition.open_since = None
        partition.places.append(None)
        partition.wake()

    def take(self, records: Sequence[NewRecord], answer: asyncio.Future[list[Position]]) -> None:
        """Take a publish in; what its producer hears of it is another matter."""
        fails = self.is_down or self.chance.random() < self.failing
        positions = None
        if not fails or (not self.is_down and self.chance.random() < 0.5):
            positions = self.append(records)
        self._loop.outside(self.latency(), self._tell, answer, None if fails else positions)

    def _tell(self, answer: asyncio.Future[list[Position]], positions: list[Position] | None) -> None:
        if answer.done():
            return
        if positions is None:
            answer.set_exception(TransportError("the brokers did not acknowledge the records."))
        else:
            answer.set_result(positions)
