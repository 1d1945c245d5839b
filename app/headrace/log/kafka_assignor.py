"""Who of a Kafka consumer group gets which partitions; computed by the group's leader, one of its members.

Every member tells the leader its identity: the service and the database that it keeps its claims in. Two databases
would each apply only their part of the events, so the leader serves the members of its own identity only, and tells
all members which identities it saw. Members that tell no identity (an older release, another tool) count as its own.

Members tell what they own, too, and keep it as far as the shares stay even: a partition that moves stands still for a
moment, one that stays does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from headrace.log.ports import TopicPartition

VERSION = 0


class _Told(msgspec.Struct):
    """A member's user data."""

    headrace_identity: str = ""
    headrace_owned: dict[str, list[int]] = {}


class _Seen(msgspec.Struct):
    """An assignment's user data: the leader's identity, and all that it knows to be in the group."""

    headrace_served: str
    headrace_identities: list[str]
    headrace_members: int = 0
    """Those that are served; 0 if the leader is of an older release."""


class IdentityAssignor:
    """aiokafka's interface of an assignor. Made for each membership: aiokafka's own keep what they learn on the class.

    Its name is that of Kafka's range assignor, so that members of older releases can share the group.
    """

    name = "range"

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._owned: list[tuple[str, list[int]]] = []
        self.conflict = ""
        """What is wrong with the group since the last assignment, in a sentence; or nothing."""
        self.member_count = 0
        """How many members shared the partitions in the last assignment; 0 if that is not known."""

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return what this member tells the leader."""
        told = msgspec.json.encode(_Told(self._identity, dict(self._owned)), order="sorted") if self._identity else b""
        return ConsumerProtocolMemberMetadata(VERSION, sorted(topics), told)

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Return each member's partitions, as the leader."""
        told_by = {member: _told(metadata.user_data) for member, metadata in members.items()}
        identities = {member: told.headrace_identity for member, told in told_by.items()}
        subscriptions = {
            member: frozenset(metadata.subscription)
            for member, metadata in members.items()
            if not self._identity or identities[member] in ("", self._identity)
        }
        topics = {topic for subscription in subscriptions.values() for topic in subscription}
        owned = {
            member: [TopicPartition(topic, n) for topic, ns in told_by[member].headrace_owned.items() for n in ns]
            for member in subscriptions
        }
        sizes = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        shares = share(sizes, subscriptions, owned)
        seen = _Seen(self._identity, sorted({*identities.values(), self._identity} - {""}), len(subscriptions))
        told = msgspec.json.encode(seen) if self._identity else b""
        return {
            member: ConsumerProtocolMemberAssignment(VERSION, _by_topic(shares.get(member, ())), told)
            for member in members
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Take note of what is owned from now on, and of what the leader saw."""
        self._owned = [(topic, list(numbers)) for topic, numbers in assignment.assignment]
        try:
            seen = msgspec.json.decode(assignment.user_data or b"", type=_Seen)
        except msgspec.DecodeError:  # the leader tells nothing
            seen = _Seen(self._identity, [])
        self.member_count = seen.headrace_members
        self.conflict = self._conflict(seen)

    def _conflict(self, seen: _Seen) -> str:
        others = [identity for identity in seen.headrace_identities if identity != self._identity]
        if not others or not self._identity:
            return ""
        if seen.headrace_served == self._identity:
            left_out = " and ".join(others)
            return (
                f"the consumer group of {self._identity} also has members of {left_out}, which get no partitions: "
                "give them another service name, or the same database."
            )
        return (
            f"the consumer group belongs to {seen.headrace_served}, so {self._identity} gets no partitions: "
            "give it another service name, or the same database."
        )


def share(
    partitions: Mapping[str, int],
    subscriptions: Mapping[str, Collection[str]],
    owned: Mapping[str, Collection[TopicPartition]] | None = None,
) -> dict[str, list[TopicPartition]]:
    """Return the partitions of each member: number n of all topics goes to one that subscribes to all, if there is one.

    If none does, number n is split: first to the member that subscribes to most of the topics, the rest likewise. So a
    member never gets number n of one topic while another with the same subscription has n of another. Among equals the
    number goes to the member with the fewest partitions. `partitions` are the topics' sizes. Members with the same
    subscription exchange numbers among themselves, so that each keeps what it `owned` as far as its share goes.
    """
    shares: dict[str, list[TopicPartition]] = {member: [] for member in sorted(subscriptions)}
    numbers: dict[str, list[list[TopicPartition]]] = {member: [] for member in shares}
    for number in range(max(partitions.values(), default=0)):
        topics = {topic for topic, count in partitions.items() if number < count}
        while topics:
            member = min(
                shares, key=lambda member: (-len(topics.intersection(subscriptions[member])), len(shares[member]))
            )
            taken = topics.intersection(subscriptions[member])
            if not taken:
                break
            numbers[member].append([TopicPartition(topic, number) for topic in sorted(taken)])
            shares[member] += numbers[member][-1]
            topics -= taken
    for alike in {frozenset(subscription) for subscription in subscriptions.values()}:
        _exchange(numbers, [member for member in shares if frozenset(subscriptions[member]) == alike], owned or {})
    return {member: [partition for number in numbers[member] for partition in number] for member in shares}


def _exchange(
    numbers: dict[str, list[list[TopicPartition]]], members: list[str], owned: Mapping[str, Collection[TopicPartition]]
) -> None:
    """Divide the members' numbers anew, with as many for each as before: who owned most of them may keep most."""
    left = [number for member in members for number in numbers[member]]
    places = sorted((len(numbers[member]) for member in members), reverse=True)
    known = {member: set(owned.get(member, ())) for member in members}
    had = {member: [number for number in left if known[member].intersection(number)] for member in members}
    places_of = dict(zip(sorted(members, key=lambda member: -len(had[member])), places, strict=True))
    for member in members:
        numbers[member] = [number for number in had[member] if number in left][: places_of[member]]
        left = [number for number in left if number not in numbers[member]]
    for member in members:
        missing = places_of[member] - len(numbers[member])
        numbers[member], left = sorted(numbers[member] + left[:missing]), left[missing:]


def _told(told: bytes | None) -> _Told:
    try:
        return msgspec.json.decode(told or b"", type=_Told)
    except msgspec.DecodeError:
        return _Told()


def _by_topic(partitions: Iterable[TopicPartition]) -> list[tuple[str, list[int]]]:
    numbers: dict[str, list[int]] = {}
    for topic, number in partitions:
        numbers.setdefault(topic, []).append(number)
    return sorted(numbers.items())
