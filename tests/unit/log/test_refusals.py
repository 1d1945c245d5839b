"""What every log refuses, in one sentence."""

from __future__ import annotations

import pytest

from headrace.errors import ConfigurationError
from headrace.log.ports import Bounds, TopicPartition
from headrace.log.refusals import check_topic_name, out_of_range

PARTITION = TopicPartition("wallets", 3)


@pytest.mark.parametrize("offset", [5, 7, 9])
def test_an_offset_from_the_first_to_the_next_is_held(offset: int) -> None:
    assert out_of_range(PARTITION, offset, Bounds(5, 9, 9)) is None


def test_a_position_before_the_first_offset_was_deleted() -> None:
    assert "retention" in str(out_of_range(PARTITION, 4, Bounds(5, 9, 9)))


def test_an_offset_past_the_next_is_of_another_topic() -> None:
    error = str(out_of_range(PARTITION, 10, Bounds(5, 9, 9)))

    assert "wallets[3]" in error
    assert "created again or truncated" in error
    assert "headrace topics --accept wallets" in error
    assert "\n" not in error


@pytest.mark.parametrize("name", ["wallets", "a.b_c-D9", "x" * 249])
def test_what_kafka_takes_is_a_topic_name(name: str) -> None:
    check_topic_name(name, 1)


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "größe", "a\n", "x" * 250])
def test_what_kafka_refuses_is_no_topic_name(name: str) -> None:
    with pytest.raises(ConfigurationError):
        check_topic_name(name, 1)
