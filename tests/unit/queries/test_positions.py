"""The id of an event names the place of its whole stream, and a reader that comes back continues there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.log.ports import Bounds, StoredRecord, TopicPartition
from headrace.queries.positions import Gap, Positions, parse_id, start_at

A0, A1, B0 = TopicPartition("alerts", 0), TopicPartition("alerts", 1), TopicPartition("b;:,/ü", 0)


def held(begin: int, end: int) -> Bounds:
    """What a partition holds."""
    return Bounds(begin, end, end)


def record(partition: TopicPartition, offset: int) -> StoredRecord:
    """A record at a place."""
    return StoredRecord(*partition, offset, 0, None, None, ())


def test_an_id_begins_with_its_own_position() -> None:
    assert Positions({A0: 3, A1: 0}).id_of(record(A1, 7)) == "alerts/1/7;alerts:3,8"


@given(st.lists(st.tuples(st.sampled_from([A0, A1, B0]), st.integers(0, 2**62)), min_size=1))
def test_an_id_leads_back_to_every_position(sent: list[tuple[TopicPartition, int]]) -> None:
    positions = Positions({A0: 1, A1: 2, B0: 3})
    expected = {A0: 1, A1: 2, B0: 3}
    for partition, offset in sent:
        expected[partition] = offset + 1
        assert parse_id(positions.id_of(record(partition, offset))) == expected


@pytest.mark.parametrize(
    "text", ["", "7", "a/0", "a/x/7", "a/0/-1", "a/0/7;", "a/0/7;a", "a/0/7;a:1,x", "a/0/٣", "a/0/" + "9" * 20]
)
def test_what_is_not_an_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of them is answered 422
        parse_id(text)


def test_a_new_reader_begins_at_the_end() -> None:
    assert start_at({A0: held(2, 9)}, {}) == ({A0: 9}, [])


def test_a_reader_continues_after_what_it_saw() -> None:
    seen = {A0: 4, A1: 9}
    assert start_at({A0: held(2, 9), A1: held(2, 9)}, seen) == ({A0: 4, A1: 9}, [])


def test_a_partition_that_is_newer_than_the_id_is_read_whole() -> None:
    assert start_at({A0: held(0, 9), A1: held(0, 5), B0: held(0, 7)}, {A0: 4, TopicPartition("c", 0): 1}) == (
        {A0: 4, A1: 0, B0: 7},
        [],
    )


def test_a_single_position_says_nothing_of_the_others() -> None:
    assert start_at({A0: held(0, 9), A1: held(0, 5)}, {A0: 4}) == ({A0: 4, A1: 5}, [])


def test_what_the_log_no_longer_has_is_named() -> None:
    assert start_at({A0: held(5, 9)}, {A0: 2}) == ({A0: 5}, [Gap(A0, 2, 5)])


def test_a_log_shorter_than_the_id_is_followed_from_its_end() -> None:
    assert start_at({A0: held(0, 3)}, {A0: 8}) == ({A0: 3}, [])
