"""The log of one process: the port that the engine works with, over the brokers of the simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from headrace.errors import TransportError
from headrace.log.ports import (
    AssignmentListener,
    Bounds,
    NewRecord,
    Position,
    Record,
    TopicInfo,
    TopicPartition,
)
from headrace.log.refusals import check_topic_name, no_such_topic, out_of_range
from headrace.log.sizes import leading
from tests.simulation.log.broker import Broker
from tests.simulation.log.group import Group
from tests.simulation.log.membership import SimulatedMembership
from tests.simulation.loop import Loop


class SimulatedLog:
    """What one process sees of the brokers."""

    system = "kafka"

    def __init__(self, loop: Loop, broker: Broker, groups: dict[str, Group], heartbeat_seconds: float) -> None:
        self._loop = loop
        self._broker = broker
        self._groups = groups
        self._heartbeat_seconds = heartbeat_seconds

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append the records; a call that fails may have appended them. Raises: TransportError."""
        for record in records:
            if record.topic not in self._broker.topics:
                raise no_such_topic(record.topic)
        answer: asyncio.Future[list[Position]] = self._loop.create_future()
        self._loop.outside(self._broker.latency(), self._broker.take, list(records), answer)
        return await answer

    async def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """Return what exists of the named topics."""
        await self._reach()
        topics = self._broker.topics
        return {name: TopicInfo(name, len(topics[name]), "simulated") for name in names if name in topics}

    async def create(self, topic: str, partitions: int) -> None:
        """Refuse: the simulation makes its topics itself."""
        check_topic_name(topic, partitions)
        raise TransportError("the simulation makes its topics itself.")

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Return what each partition holds."""
        await self._reach()
        found = {place: self._broker.partition(place) for place in partitions}
        return {place: Bounds(0, each.stable_end, len(each.places)) for place, each in found.items()}

    async def offset_at(self, partition: TopicPartition, milliseconds: int) -> int:
        """Refuse: nobody asks the simulation for a time."""
        raise TransportError("the simulation has no index of times.")

    async def reader(self, positions: Mapping[TopicPartition, int]) -> SimulatedReader:
        """Return a reader that starts at the offsets."""
        await self._reach()
        return SimulatedReader(self._broker, positions)

    def membership(
        self, group: str, topics: Sequence[str], listener: AssignmentListener, identity: str
    ) -> SimulatedMembership:
        """Return a seat in the group."""
        return SimulatedMembership(self._loop, self._groups[group], listener, self._heartbeat_seconds)

    async def _reach(self) -> None:
        await asyncio.sleep(self._broker.latency() * 2)
        if self._broker.is_down:
            raise TransportError("the brokers are away.")


class SimulatedReader:
    """Reads committed records by offset."""

    def __init__(self, broker: Broker, positions: Mapping[TopicPartition, int]) -> None:
        self._broker = broker
        self._positions = dict(positions)
        self._bell = asyncio.Event()
        for place in positions:
            broker.partition(place).readers.append(self._bell)

    async def fetch(
        self, max_records: int, max_bytes: int, timeout_seconds: float
    ) -> dict[TopicPartition, list[Record]]:
        """Return the next records; see the port."""
        found = self._take(max_records, max_bytes)
        if not found:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._bell.wait()
            except TimeoutError:
                pass
        await asyncio.sleep(self._broker.latency() * 2)
        if self._broker.is_down:
            raise TransportError("the brokers are away.")
        return found or self._take(max_records, max_bytes)

    def position(self, partition: TopicPartition) -> int:
        """Return the offset that the next fetch starts at."""
        return self._positions[partition]

    async def close(self) -> None:
        """Stop being woken."""
        for place in self._positions:
            readers = self._broker.partition(place).readers
            if self._bell in readers:
                readers.remove(self._bell)

    def _take(self, max_records: int, max_bytes: int) -> dict[TopicPartition, list[Record]]:
        self._bell.clear()
        found: dict[TopicPartition, list[Record]] = {}
        for place, offset in self._positions.items():
            partition = self._broker.partition(place)
            end = partition.stable_end
            if mismatch := out_of_range(place, offset, Bounds(0, end, len(partition.places))):
                raise mismatch
            records = [record for record in partition.places[offset:end] if record is not None]
            count, size = leading(records[:max_records], max_records, max_bytes)
            taken = records[:count] if count and (not found or size <= max_bytes) else []
            if taken:
                found[place] = [*taken]
                max_records -= count
                max_bytes -= size
            if len(taken) == len(records):
                self._positions[place] = end
            elif taken:
                self._positions[place] = taken[-1].offset + 1
        return found
