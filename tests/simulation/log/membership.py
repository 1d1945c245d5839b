"""A seat in a group, as the one on Kafka behaves: it goes on with what it has until it is told what it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from headrace.log.ports import AssignmentListener, TopicPartition
from tests.simulation.log.group import Group, Share
from tests.simulation.loop import Loop

REJOIN_SECONDS = 0.5


class SimulatedMembership:
    """One process's seat."""

    def __init__(self, loop: Loop, group: Group, listener: AssignmentListener, heartbeat_seconds: float) -> None:
        self._loop = loop
        self._group = group
        self._listener = listener
        self._heartbeat_seconds = heartbeat_seconds
        self._member: int | None = None
        self._owned: frozenset[TopicPartition] = frozenset()
        self._members = 1
        self._is_joined = False
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None
        self.dies = False
        """Set by a fault: the client is lost, and replaced."""

    async def start(self) -> None:
        """Join in the background."""
        self._task = asyncio.create_task(self._run(), name="membership")

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Keep the offsets of what is owned, as hints."""
        for place, offset in offsets.items():
            if place in self._owned:
                self._group.offsets[place] = offset

    async def stop(self) -> None:
        """Leave the group without telling the listener, and return when the others have heard of it."""
        self._is_stopping = True
        heard = 0.0 if self.is_alone else min(1.25 * self._heartbeat_seconds, 5.0)
        self._loop.outside(0.001, self._group.leave, self._member)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await asyncio.sleep(heard)

    @property
    def is_joined(self) -> bool:
        return self._is_joined

    @property
    def is_alone(self) -> bool:
        return not self._owned or self._members == 1

    async def _run(self) -> None:
        while not self._is_stopping:
            await self._join()
            while not self.dies and await self._beat() == "stable":
                pass
            if self.dies:
                self.dies = False
                await self._give_up()

    async def _join(self) -> None:
        """Join, or join again, and tell what is ours."""
        if self._owned:
            await self._listener.rebalancing()
        answer: asyncio.Future[Share] = self._loop.create_future()
        self._loop.outside(0.001, self._group.join, self._member, answer)
        self._is_joined = True
        share = await answer
        was_removed = self._member not in (None, share.member)
        self._member, self._owned, self._members = share.member, share.partitions, share.members
        await self._listener.assigned(share.partitions, was_removed=was_removed)

    async def _beat(self) -> str:
        await asyncio.sleep(self._heartbeat_seconds)
        answer: asyncio.Future[str] = self._loop.create_future()
        assert self._member is not None
        self._loop.outside(0.001, self._group.heartbeat, self._member, answer)
        return await answer

    async def _give_up(self) -> None:
        self._loop.outside(0.001, self._group.leave, self._member)
        self._member, owned, self._owned = None, self._owned, frozenset()
        if owned:
            await self._listener.lost(owned)
        await asyncio.sleep(REJOIN_SECONDS)
