"""Who of a Kafka consumer group gets which partitions; computed by the group's leader, one of its members.

Every member tells the leader its identity: the service and the database that it keeps its claims in. Two databases
would each apply only their part of the events, so the leader serves the members of its own identity only, and tells
all members which identities it saw. Members that tell no identity (an older release, another tool) count as its own.
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

    headrace_identity: str


class _Seen(msgspec.Struct):
    """An assignment's user data: the leader's identity, and all that it knows to be in the group."""

    headrace_served: str
    headrace_identities: list[str]


class IdentityAssignor:
    """aiokafka's interface of an assignor. Made for each membership: aiokafka's own keep what they learn on the class.

    Its name is that of Kafka's range assignor, so that members of older releases can share the group.
    """

    name = "range"

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self.conflict = ""
        """What is wrong with the group since the last assignment, in a sentence; or nothing."""

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return what this member tells the leader."""
        told = msgspec.json.encode(_Told(self._identity)) if self._identity else b""
        return ConsumerProtocolMemberMetadata(VERSION, sorted(topics), told)

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Return each member's partitions, as the leader."""
        identities = {member: _identity(metadata.user_data) for member, metadata in members.items()}
        subscriptions = {
            member: frozenset(metadata.subscription)
            for member, metadata in members.items()
            if not self._identity or identities[member] in ("", self._identity)
        }
        topics = {topic for subscription in subscriptions.values() for topic in subscription}
        shares = share({topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}, subscriptions)
        seen = _Seen(self._identity, sorted({*identities.values(), self._identity} - {""}))
        told = msgspec.json.encode(seen) if self._identity else b""
        return {
            member: ConsumerProtocolMemberAssignment(VERSION, _by_topic(shares.get(member, ())), told)
            for member in members
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Take note of what the leader saw."""
        self.conflict = self._conflict(assignment.user_data)

    def _conflict(self, told: bytes | None) -> str:
        try:
            seen = msgspec.json.decode(told or b"", type=_Seen)
        except msgspec.DecodeError:  # the leader tells nothing
            return ""
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
    partitions: Mapping[str, int], subscriptions: Mapping[str, Collection[str]]
) -> dict[str, list[TopicPartition]]:
    """Return the partitions of each member: number n of all topics goes to one that subscribes to all, if there is one.

    If none does, number n is split: first to the member that subscribes to most of the topics, the rest likewise. So a
    member never gets number n of one topic while another with the same subscription has n of another. Among equals the
    number goes to the member with the fewest partitions. `partitions` are the topics' sizes.
    """
    shares: dict[str, list[TopicPartition]] = {member: [] for member in sorted(subscriptions)}
    for number in range(max(partitions.values(), default=0)):
        topics = {topic for topic, count in partitions.items() if number < count}
        while topics:
            member = min(
                shares, key=lambda member: (-len(topics.intersection(subscriptions[member])), len(shares[member]))
            )
            taken = topics.intersection(subscriptions[member])
            if not taken:
                break
            shares[member] += [TopicPartition(topic, number) for topic in sorted(taken)]
            topics -= taken
    return shares


def _identity(told: bytes | None) -> str:
    try:
        return msgspec.json.decode(told or b"", type=_Told).headrace_identity
    except msgspec.DecodeError:
        return ""


def _by_topic(partitions: Iterable[TopicPartition]) -> list[tuple[str, list[int]]]:
    numbers: dict[str, list[int]] = {}
    for topic, number in partitions:
        numbers.setdefault(topic, []).append(number)
    return sorted(numbers.items())
