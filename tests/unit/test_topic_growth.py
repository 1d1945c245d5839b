"""What a start and `headrace doctor` find wrong with topics, and which of it a start can live with."""

from __future__ import annotations

import pytest

from headrace.errors import ConfigurationError
from headrace.event import Event
from headrace.log.ports import TopicInfo
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.topics import KnownTopic, growth_advice, refuse_faults, topic_faults


class Placed(Event, type="order.placed", topic="orders"):
    order: str


class Paid(Event, type="order.paid", topic="payments"):
    order: str


@pytest.fixture
def registry() -> Registry:
    registry = Registry("shop")
    subscription = registry.add_subscription("orders", "earliest")

    @subscription.on(Placed)
    def place(event: Placed) -> None: ...

    @subscription.on(Paid)
    def pay(event: Paid) -> None: ...

    registry.complete()
    return registry


def infos(**partitions: int) -> dict[str, TopicInfo]:
    return {topic: TopicInfo(topic, count, "cluster-1") for topic, count in partitions.items()}


def known(log_id: str = "cluster-1", **partitions: int) -> list[KnownTopic]:
    return [KnownTopic(topic, count, log_id) for topic, count in partitions.items()]


@pytest.mark.parametrize("setting", [None, 2, 4])
def test_added_partitions_are_a_fault_that_stops_no_start(setting: int | None) -> None:
    """Also while HEADRACE_PARTITIONS still is the number from before."""
    (fault,) = topic_faults(infos(orders=4), known(orders=2), None, Settings(partitions=setting))
    assert not fault.stops_start
    assert "has 4 partitions and had 2 before" in fault.sentence and "--accept orders" in fault.sentence


@pytest.mark.parametrize(
    ("before", "setting", "words"),
    [
        (known(orders=6), None, "had 6 before, so it was created again"),
        (known("cluster-2", orders=4), None, "HEADRACE_LOG names another log"),
        (known("cluster-2", orders=2), None, "HEADRACE_LOG names another log"),
        (known(orders=2), 3, "HEADRACE_PARTITIONS is 3"),
    ],
)
def test_what_nobody_can_drain_stops_a_start(before: list[KnownTopic], setting: int | None, words: str) -> None:
    faults = topic_faults(infos(orders=4), before, None, Settings(partitions=setting))
    with pytest.raises(ConfigurationError, match=words):
        refuse_faults(fault for fault in faults if fault.stops_start)


def test_a_topic_that_grew_before_the_other_stops_no_start(registry: Registry) -> None:
    before = known(orders=2, payments=2)
    (fault,) = topic_faults(infos(orders=4, payments=2), before, registry, Settings())
    assert fault.what == "topic orders" and not fault.stops_start


@pytest.mark.parametrize("before", [[], known(orders=4, payments=2)])
def test_topics_that_were_never_co_partitioned_stop_it(registry: Registry, before: list[KnownTopic]) -> None:
    (fault,) = topic_faults(infos(orders=4, payments=2), before, registry, Settings())
    assert fault.stops_start and "not co-partitioned (orders: 4, payments: 2)" in fault.sentence


def test_producers_are_to_be_stopped_if_old_partitions_mix() -> None:
    assert "producers" not in growth_advice("orders", 2, 6)
    assert "stop its producers first (5 is no multiple of 2" in growth_advice("orders", 2, 5)
