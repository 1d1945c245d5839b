"""What the two logs of a single process share: a membership that owns everything, and readers that wait to be woken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from headrace.errors import TransportError
from headrace.log.ports import AssignmentListener, TopicInfo, TopicPartition
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.log")

RETRY_SECONDS = 0.5


class Wakeups:
    """Wakes readers when their partitions grow: a publish of one partition does not disturb the readers of others."""

    def __init__(self) -> None:
        self._bells: dict[TopicPartition, set[asyncio.Event]] = {}

    def listen(self, partitions: Sequence[TopicPartition]) -> asyncio.Event:
        """Return an event that is set from now on whenever one of the partitions grows."""
        bell = asyncio.Event()
        for partition in partitions:
            self._bells.setdefault(partition, set()).add(bell)
        return bell

    def forget(self, bell: asyncio.Event) -> None:
        """Never set the event again."""
        for bells in self._bells.values():
            bells.discard(bell)

    def ring(self, partition: TopicPartition) -> None:
        """Wake the readers of a partition that has grown."""
        for bell in self._bells.get(partition, ()):
            bell.set()


def take_turns(positions: dict[TopicPartition, int], read: Iterable[TopicPartition]) -> None:
    """Put what was read behind the other partitions: one that always has more than a fetch takes starves no other."""
    for partition in read:
        positions[partition] = positions.pop(partition)


class _Topics(Protocol):
    async def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]: ...


class LocalMembership:
    """A group of one: all partitions are this process's from the start, since no other can open the log."""

    def __init__(self, log: _Topics, topics: Sequence[str], listener: AssignmentListener) -> None:
        self._log = log
        self._topics = list(topics)
        self._listener = listener
        self._task: asyncio.Task[None] | None = None
        self._is_joined = False

    async def start(self) -> None:
        """Tell the listener in the background, as soon as the log says what partitions there are."""
        self._task = asyncio.get_running_loop().create_task(self._join())

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Do nothing: no tool asks this log for a group's offsets."""

    async def stop(self) -> None:
        """Stop telling the listener. Never raises."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def is_joined(self) -> bool:
        """True once the listener was told."""
        return self._is_joined

    @property
    def is_alone(self) -> bool:
        """True: no other process can open the log."""
        return True

    async def _join(self) -> None:
        while not self._is_joined:
            try:
                found = await self._log.topics(self._topics)
                await self._listener.assigned(
                    [TopicPartition(name, number) for name, info in found.items() for number in range(info.partitions)]
                )
                self._is_joined = True
            except TransportError as error:
                logger.warning("partitions not known yet; trying again", topics=self._topics, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                logger.exception("a membership's listener failed and is told again", topics=self._topics)
                await asyncio.sleep(RETRY_SECONDS)
