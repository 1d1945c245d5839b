"""The coordinator of a group: members join, are told of a rebalance by their heartbeats, and are removed if silent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

from headrace.log.ports import TopicPartition
from tests.simulation.loop import Loop


@dataclass
class Member:
    """A member, and where its share is to be told while the group divides the partitions."""

    seen_at: float
    share: frozenset[TopicPartition] = frozenset()
    waiting: asyncio.Future[Share] | None = None


@dataclass(frozen=True)
class Share:
    """What a member is told after a rebalance."""

    member: int
    partitions: frozenset[TopicPartition]
    members: int


class Group:
    """One consumer group."""

    def __init__(
        self,
        loop: Loop,
        chance: Random,
        partitions: list[TopicPartition],
        session_seconds: float,
        rebalance_seconds: float,
    ) -> None:
        self._loop = loop
        self._chance = chance
        self._numbers = sorted({place.partition for place in partitions})
        self._partitions = partitions
        self._session_seconds = session_seconds
        self._rebalance_seconds = rebalance_seconds
        self.members: dict[int, Member] = {}
        self._last = 0
        self.offsets: dict[TopicPartition, int] = {}
        """What members have committed: hints, which the engine never reads."""
        self.is_dividing = False
        self._round = 0
        self._shuffles = False

    def join(self, member: int | None, answer: asyncio.Future[Share]) -> None:
        """Take a member in, or in again; the answer comes when all have joined."""
        if member not in self.members:
            self._last += 1
            member = self._last
            self.members[member] = Member(self._loop.time())
            self._loop.outside(self._session_seconds, self._check, member)
        self.members[member].seen_at = self._loop.time()
        self.members[member].waiting = answer
        self.divide()
        self._divide_if_complete()

    def heartbeat(self, member: int, answer: asyncio.Future[str]) -> None:
        """Tell a member how the group is: stable, dividing, or that it is not known any more."""
        known = self.members.get(member)
        if known is not None:
            known.seen_at = self._loop.time()
        if not answer.done():
            answer.set_result("unknown" if known is None else "dividing" if self.is_dividing else "stable")

    def leave(self, member: int | None) -> None:
        """Let a member go; one that waits for its share joins again, under another number."""
        gone = self.members.pop(member, None) if member is not None else None
        if gone is None:
            return
        self.divide()
        if gone.waiting is not None:
            self.join(None, gone.waiting)
        self._divide_if_complete()

    def expel(self, place: int) -> None:
        """Remove a member that lives, as if it had been silent."""
        if self.members:
            self.leave(sorted(self.members)[place % len(self.members)])

    def divide(self, *, shuffles: bool = False) -> None:
        """Begin to divide the partitions anew, if that is not under way."""
        self._shuffles |= shuffles
        if not self.is_dividing:
            self.is_dividing = True
            self._round += 1
            self._loop.outside(self._rebalance_seconds, self._give_up_waiting, self._round)

    def _give_up_waiting(self, round_: int) -> None:
        if self.is_dividing and round_ == self._round:
            for member in [number for number, each in self.members.items() if each.waiting is None]:
                del self.members[member]
            self._divide_if_complete()

    def _check(self, member: int) -> None:
        """Remove a member that was silent for a session."""
        known = self.members.get(member)
        if known is None:
            return
        left = known.seen_at + self._session_seconds - self._loop.time()
        if left > 0 or known.waiting is not None:
            self._loop.outside(max(left, 0.1), self._check, member)
        else:
            self.leave(member)

    def _divide_if_complete(self) -> None:
        if not self.is_dividing or not self.members or any(each.waiting is None for each in self.members.values()):
            return
        self.is_dividing = False
        for number, partitions in self._shares().items():
            known = self.members[number]
            known.share, known.seen_at = partitions, self._loop.time()
            answer, known.waiting = known.waiting, None
            if answer is not None and not answer.done():
                answer.set_result(Share(number, partitions, len(self.members)))

    def _shares(self) -> dict[int, frozenset[TopicPartition]]:
        """Leave each member what it can keep, unless the shares are drawn anew."""
        most = -(-len(self._numbers) // len(self.members))
        shares: dict[int, list[int]] = {number: [] for number in sorted(self.members)}
        left = list(self._numbers)
        if not self._shuffles:
            for number, known in sorted(self.members.items()):
                kept = sorted({place.partition for place in known.share} & set(left))[:most]
                shares[number] += kept
                left = [each for each in left if each not in kept]
        else:
            self._chance.shuffle(left)
        self._shuffles = False
        for each in left:
            shares[min(shares, key=lambda number: (len(shares[number]), number))].append(each)
        return {
            number: frozenset(place for place in self._partitions if place.partition in numbers)
            for number, numbers in shares.items()
        }
