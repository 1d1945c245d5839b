"""Which topics a service can work on, as a table."""

from __future__ import annotations

import pytest

from headrace import Event
from headrace.errors import ConfigurationError
from headrace.fault import Fault
from headrace.log.ports import TopicInfo
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.topics import KnownTopic, refuse_faults, topic_faults, topics_of


class Paid(Event, type="paid", topic="payments", key="order"):
    order: str


class Placed(Event, type="placed", topic="orders", key="order"):
    order: str


class Told(Event, type="told", topic="mails", key="order"):
    order: str


def registry() -> Registry:
    """Return a service that reads orders and payments in one subscription, writes mails, and decodes meters."""
    made = Registry("shop")
    subscription = made.add_subscription("sales", "earliest")

    @subscription.on(Paid)
    def pay(event: Paid) -> None: ...

    @subscription.on(Placed)
    def place(event: Placed) -> None: ...

    made.add_type(Told)
    made.decoders["meters"] = lambda record: None
    made.complete()
    return made


def infos(**partitions: int) -> dict[str, TopicInfo]:
    """Return topics with these numbers of partitions, in the log `kafka:one`."""
    return {topic: TopicInfo(topic, count, "kafka:one") for topic, count in partitions.items()}


ALL = {"mails": 6, "meters": 2, "orders": 3, "payments": 3}

FAULTS: list[tuple[dict[str, int], list[KnownTopic], int | None, list[str]]] = [
    (ALL, [], None, []),
    (ALL, [KnownTopic("orders", 3, "kafka:one"), KnownTopic("elsewhere", 9, "kafka:two")], None, []),
    ({"meters": 2}, [], None, []),
    (
        {"mails": 6, "orders": 3, "payments": 3},
        [],
        None,
        [
            "topic meters does not exist, and Headrace creates no topic that has a decoder, since others write it; "
            "create it first."
        ],
    ),
    (
        {"meters": 2, "orders": 3},
        [],
        2,
        [
            "topic orders has 3 partitions, but HEADRACE_PARTITIONS is 2; set HEADRACE_PARTITIONS=3, or unset it.",
        ],
    ),
    (
        ALL,
        [KnownTopic("orders", 3, "kafka:two"), KnownTopic("mails", 6, "kafka:one")],
        None,
        [
            "topic orders was applied from kafka:two, but HEADRACE_LOG names another log than before: kafka:one; set "
            "HEADRACE_LOG back, or run `headrace topics --accept orders` to start at the topic's beginning.",
        ],
    ),
    (
        {"mails": 6, "meters": 2, "orders": 3, "payments": 4},
        [],
        None,
        [
            "subscription sales reads topics that are not co-partitioned (orders: 3, payments: 4); give them the same "
            "number of partitions, or handle them in two subscriptions.",
        ],
    ),
]


@pytest.mark.parametrize(("found", "known", "partitions", "sentences"), FAULTS)
def test_each_fault_is_one_sentence(
    found: dict[str, int], known: list[KnownTopic], partitions: int | None, sentences: list[str]
) -> None:
    faults = topic_faults(infos(**found), known, registry(), Settings(partitions=partitions))
    assert [fault.sentence for fault in faults] == sentences


def test_without_a_service_topics_are_compared_with_the_past() -> None:
    known = [KnownTopic("orders", 3, "kafka:two"), KnownTopic("gone", 3, "kafka:one")]
    faults = topic_faults(infos(orders=3, payments=4), known, None, Settings())
    assert [fault.what for fault in faults] == ["topic orders"]


def test_each_group_that_knows_another_topic_is_a_fault() -> None:
    known = [KnownTopic("orders", 2, "kafka:one"), KnownTopic("orders", 3, "kafka:one")]
    faults = topic_faults(infos(orders=3), known, None, Settings())
    assert [fault.found for fault in faults] == [
        "has 3 partitions and had 2 before, so keys have moved and the new ones are not read"
    ]


def test_start_raises_the_first_fault() -> None:
    refuse_faults([])
    with pytest.raises(ConfigurationError, match=r"^topic a is odd; change it\.$"):
        refuse_faults([Fault("topic a", "is odd", "change it"), Fault("topic b", "is even", "leave it")])


def test_topics_are_those_that_are_read_written_and_decoded() -> None:
    assert topics_of(registry()) == sorted(ALL)
