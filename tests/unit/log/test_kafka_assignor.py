"""Who gets which partition number, and what members of another identity are told."""

from __future__ import annotations

import random

import msgspec
import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.structs import PartitionMetadata

from headrace.log.kafka_assignor import IdentityAssignor, share
from headrace.log.ports import TopicPartition

A, B = "alerts", "wallets"


def cluster(**partitions: int) -> ClusterMetadata:
    known = ClusterMetadata()
    known._partitions = {
        topic: {number: PartitionMetadata(topic, number, 1, [1], [1], 0) for number in range(count)}
        for topic, count in partitions.items()
    }
    return known


def numbers(share: list[TopicPartition], topic: str) -> set[int]:
    return {number for name, number in share if name == topic}


def test_equal_members_share_numbers_evenly() -> None:
    shares = share({A: 6, B: 6}, {member: [A, B] for member in "xyz"})

    for owned in shares.values():
        assert len(owned) == 4
        assert numbers(owned, A) == numbers(owned, B)


def test_a_number_goes_to_who_subscribes_to_all_topics() -> None:
    shares = share({A: 4, B: 4}, {"old": [A], "new": [A, B], "newer": [A, B]})

    assert shares["old"] == []
    assert numbers(shares["new"], A) == numbers(shares["new"], B)
    assert len(shares["new"]) == len(shares["newer"]) == 4


def test_a_number_is_split_if_nobody_subscribes_to_all() -> None:
    shares = share({A: 2, B: 2}, {"left": [A], "right": [B]})

    assert shares == {
        "left": [TopicPartition(A, 0), TopicPartition(A, 1)],
        "right": [TopicPartition(B, 0), TopicPartition(B, 1)],
    }


def test_topics_may_differ_in_size() -> None:
    shares = share({A: 1, B: 3}, {"x": [A, B], "y": [A, B]})

    assert sorted(shares["x"] + shares["y"]) == [TopicPartition(A, 0), *(TopicPartition(B, n) for n in range(3))]


def test_who_leaves_moves_only_what_it_had() -> None:
    before = share({A: 12}, {member: [A] for member in "uvwxyz"})

    after = share({A: 12}, {member: [A] for member in "uvwxy"}, before)

    for member in "uvwxy":
        assert set(before[member]) <= set(after[member])
    assert sorted(len(owned) for owned in after.values()) == [2, 2, 2, 3, 3]


def test_who_joins_takes_one_share_only() -> None:
    before = share({A: 6, B: 6}, {member: [A, B] for member in "xyz"})

    after = share({A: 6, B: 6}, {member: [A, B] for member in "wxyz"}, before)

    assert len(after["w"]) == 2
    assert sum(len(set(before[member]) - set(after[member])) for member in "xyz") == 2
    assert share({A: 6}, {member: [A] for member in "abcdefg"}, {"g": [TopicPartition(A, 5)]})["g"] == [(A, 5)]


def test_what_two_members_claim_to_own_goes_to_one() -> None:
    shares = share({A: 2}, {"x": [A], "y": [A]}, {member: [TopicPartition(A, 0)] for member in "xy"})

    assert sorted(shares.values()) == [[(A, 0)], [(A, 1)]]


@pytest.mark.parametrize("seed", range(50))
def test_each_partition_has_one_owner_who_holds_its_number(seed: int) -> None:
    chance = random.Random(seed)
    topics = {f"topic-{n}": chance.randint(0, 7) for n in range(chance.randint(1, 4))}
    subscriptions = {
        f"member-{n}": chance.sample(sorted(topics), chance.randint(1, len(topics)))
        for n in range(chance.randint(1, 6))
    }

    everybody = [TopicPartition(topic, number) for topic in topics for number in range(topics[topic])]
    owned_before = {member: chance.sample(everybody, len(everybody) // 2) for member in subscriptions}

    shares = share(topics, subscriptions, owned_before)

    wanted = {topic for subscription in subscriptions.values() for topic in subscription}
    everything = [TopicPartition(topic, number) for topic in wanted for number in range(topics[topic])]
    assert sorted(p for owned in shares.values() for p in owned) == sorted(everything)
    for member, owned in shares.items():
        assert {topic for topic, _ in owned} <= set(subscriptions[member])
        for other, others in shares.items():
            if other != member and set(subscriptions[other]) == set(subscriptions[member]):
                assert not {number for _, number in owned} & {number for _, number in others}


def _assigned(leader: IdentityAssignor, **members: IdentityAssignor) -> dict[str, ConsumerProtocolMemberAssignment]:
    told = {
        name: ConsumerProtocolMemberMetadata.decode(member.metadata([A]).encode()) for name, member in members.items()
    }
    assignments = leader.assign(cluster(alerts=4), told)
    for name, member in members.items():
        member.on_assignment(ConsumerProtocolMemberAssignment.decode(assignments[name].encode()))
    return assignments


def test_only_the_leaders_identity_is_served_and_all_are_told() -> None:
    one, same, other = (IdentityAssignor(identity) for identity in ("shop in one", "shop in one", "shop in two"))

    assignments = _assigned(one, one=one, same=same, other=other)

    assert [len(assignments[name].partitions()) for name in ("one", "same", "other")] == [2, 2, 0]
    assert "also has members of shop in two" in one.conflict
    assert one.conflict == same.conflict
    assert "belongs to shop in one" in other.conflict
    assert "shop in two gets no partitions" in other.conflict


def test_a_conflict_is_over_with_the_next_assignment() -> None:
    one, other = IdentityAssignor("shop in one"), IdentityAssignor("shop in two")
    _assigned(one, one=one, other=other)

    _assigned(other, other=other)

    assert other.conflict == ""


def test_members_that_tell_nothing_count_as_own() -> None:
    ours, silent, older = IdentityAssignor("shop in one"), IdentityAssignor(""), RangePartitionAssignor
    members = {"ours": ours.metadata([A]), "silent": silent.metadata([A]), "older": older.metadata([A])}
    members["foreign"] = ConsumerProtocolMemberMetadata(0, [A], b"\x00not ours\xff")
    members["null"] = ConsumerProtocolMemberMetadata(0, [A], None)

    assignments = ours.assign(cluster(alerts=5), members)

    assert [len(assignment.partitions()) for assignment in assignments.values()] == [1, 1, 1, 1, 1]
    ours.on_assignment(assignments["ours"])
    assert ours.conflict == ""


def test_a_leader_of_an_older_release_is_understood() -> None:
    ours = IdentityAssignor("shop in one")
    assignments = RangePartitionAssignor.assign(cluster(alerts=2), {"ours": ours.metadata([A])})

    ours.on_assignment(assignments["ours"])

    assert ours.conflict == ""
    assert ours.name == RangePartitionAssignor.name


def test_user_data_is_json_for_people_who_look() -> None:
    alone = IdentityAssignor("shop in one")
    _assigned(alone, alone=alone)

    told = msgspec.json.decode(alone.metadata([A]).user_data)

    assert told == {"headrace_identity": "shop in one", "headrace_owned": {A: [0, 1, 2, 3]}}
    assert alone.member_count == 1
