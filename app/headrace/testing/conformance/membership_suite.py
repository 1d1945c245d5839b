"""What every log promises to the members of a group: who owns which partitions, and who is told of what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from headrace.log.ports import Log, Membership, TopicPartition
from headrace.testing.conformance.base import DEADLINE_SECONDS, SHARED_GROUP, Suite


class MembershipSuite(Suite):
    """The part of `LogSuite` that is about memberships."""

    async def test_a_single_member_gets_every_partition(self, log: Log, topic: str) -> None:
        topics = await co_partitioned(log, topic)
        seat = Seat(log, topic, topics)
        await seat.start()

        await seat.owns(lambda owned: owned == every_partition(topics))
        await seat.stop()

        assert seat.membership.is_joined

    async def test_a_group_is_independent_of_another(self, log: Log, topic: str) -> None:
        topics = await co_partitioned(log, topic)
        seats = [Seat(log, f"{topic}-{name}", topics) for name in ("a", "b")]
        for seat in seats:
            await seat.start()

        for seat in seats:
            await seat.owns(lambda owned: owned == every_partition(topics))
        for seat in seats:
            await seat.stop()

    async def test_commit_never_raises(self, log: Log, topic: str) -> None:
        topics = await co_partitioned(log, topic)
        seat = Seat(log, topic, topics)
        await seat.membership.commit({TopicPartition(topic, 0): 1})
        await seat.start()
        await seat.owns(bool)

        await seat.membership.commit({TopicPartition(topics[0], 0): 1, TopicPartition(f"{topic}-foreign", 9): 5})
        await seat.stop()
        await seat.membership.commit({TopicPartition(topics[0], 0): 1})

    async def test_members_share_partitions_number_by_number(self, log: Log, topic: str) -> None:
        self._need(SHARED_GROUP)
        topics = await co_partitioned(log, topic)
        first, second = Seat(log, topic, topics), Seat(log, topic, topics)
        await first.start()
        await first.owns(lambda owned: owned == every_partition(topics))

        await second.start()
        await second.owns(bool)
        await first.owns(lambda owned: owned == every_partition(topics) - second.owned)

        assert first.owned
        for seat in (first, second):
            numbers = [{number for name, number in seat.owned if name == one} for one in topics]
            assert numbers[0] == numbers[1]
            await seat.stop()

    async def test_a_number_goes_to_a_member_with_all_topics(self, log: Log, topic: str) -> None:
        """A roll-out adds a topic: the new members take whole numbers, whoever joined or leads first."""
        self._need(SHARED_GROUP)
        topics = await co_partitioned(log, topic)
        old, new = Seat(log, topic, topics[:1]), [Seat(log, topic, topics) for _ in range(2)]
        await old.start()
        await old.owns(lambda owned: owned == every_partition(topics[:1]))

        for seat in new:
            await seat.start()

        await old.owns(lambda owned: not owned)
        for seat in new:
            await seat.owns(lambda owned: len(owned) == 4)
            assert {number for _, number in seat.owned} == {n for name, n in seat.owned if name == topics[0]}
        assert new[0].owned | new[1].owned == every_partition(topics)
        for seat in new:
            await seat.stop()
        await old.owns(lambda owned: owned == every_partition(topics[:1]))
        await old.stop()

    async def test_members_of_two_identities_are_told(self, log: Log, topic: str) -> None:
        self._need(SHARED_GROUP)
        topics = await co_partitioned(log, topic)
        first, second = Seat(log, topic, topics, "shop in one"), Seat(log, topic, topics, "shop in two")
        await first.start()
        await first.owns(lambda owned: owned == every_partition(topics))
        assert first.refusal == ""

        await second.start()
        await first.is_told(lambda reason: "shop in two" in reason)
        await second.is_told(lambda reason: "shop in one" in reason)
        served, refused = (first, second) if "get no partitions" in first.refusal else (second, first)
        await served.owns(lambda owned: owned == every_partition(topics))
        await refused.owns(lambda owned: not owned)

        await served.stop()
        await refused.is_told(lambda reason: reason == "")
        await refused.owns(lambda owned: owned == every_partition(topics))
        await refused.stop()

    async def test_a_member_without_identity_counts_as_own(self, log: Log, topic: str) -> None:
        self._need(SHARED_GROUP)
        topics = await co_partitioned(log, topic)
        seats = [Seat(log, topic, topics, identity) for identity in ("shop in one", "")]
        for seat in seats:
            await seat.start()

        for seat in seats:
            await seat.owns(lambda owned: len(owned) == 4)
            assert seat.refusal == ""
        for seat in seats:
            await seat.stop()

    async def test_a_member_that_leaves_hands_its_partitions_over(self, log: Log, topic: str) -> None:
        self._need(SHARED_GROUP)
        topics = await co_partitioned(log, topic)
        first, second = Seat(log, topic, topics), Seat(log, topic, topics)
        await first.start()
        await second.start()
        await first.owns(bool)
        await second.owns(bool)

        await first.stop()

        await second.owns(lambda owned: owned == every_partition(topics))
        await second.stop()

    async def test_a_membership_can_stop_at_once(self, log: Log, topic: str) -> None:
        topics = await co_partitioned(log, topic)
        seat = Seat(log, topic, topics)

        await seat.start()
        await seat.stop()

        assert not seat.owned or seat.owned == every_partition(topics)


class Seat:
    """A member of a group whose listener remembers what it owns."""

    def __init__(self, log: Log, group: str, topics: list[str], identity: str = "shop in one database") -> None:
        self.owned: frozenset[TopicPartition] = frozenset()
        self.membership: Membership = log.membership(group, topics, self, identity)
        self.refusal = ""
        self.is_rebalancing = False
        self.assignments = 0
        self._changed = asyncio.Condition()

    async def start(self) -> None:
        await self.membership.start()

    async def stop(self) -> None:
        await self.membership.stop()

    async def rebalancing(self) -> None:
        async with self._changed:
            self.is_rebalancing = True
            self._changed.notify_all()

    async def lost(self, partitions: Iterable[TopicPartition]) -> None:
        await self._own(self.owned - set(partitions))

    async def assigned(self, partitions: Iterable[TopicPartition], *, was_removed: bool = False) -> None:
        self.is_rebalancing = False
        self.assignments += 1
        await self._own(frozenset(partitions))

    async def refused(self, reason: str) -> None:
        async with self._changed:
            self.refusal = reason
            self._changed.notify_all()

    async def is_told(self, condition: Callable[[str], object]) -> None:
        """Return when what was told of other identities fits the condition."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._changed:
            await self._changed.wait_for(lambda: bool(condition(self.refusal)))

    async def owns(self, condition: Callable[[frozenset[TopicPartition]], object]) -> None:
        """Return when what is owned fits the condition."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._changed:
            await self._changed.wait_for(lambda: bool(condition(self.owned)))

    async def _own(self, owned: frozenset[TopicPartition]) -> None:
        async with self._changed:
            self.owned = owned
            self._changed.notify_all()


async def co_partitioned(log: Log, topic: str) -> list[str]:
    """Create two topics with four partitions each."""
    topics = [f"{topic}-left", f"{topic}-right"]
    for name in topics:
        await log.create(name, 4)
    return topics


def every_partition(topics: Iterable[str]) -> frozenset[TopicPartition]:
    """Return all partitions of what co_partitioned() created."""
    return frozenset(TopicPartition(name, number) for name in topics for number in range(4))
