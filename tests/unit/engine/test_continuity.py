"""A log that does not continue at the claim is refused, at each of its edges and nowhere else."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from headrace.engine.claim import Claim, Fingerprint
from headrace.engine.continuity import check_bounds, check_fingerprint, check_log, check_partitions, resume_at
from headrace.errors import LogMismatchError
from headrace.log.ports import Bounds, StoredRecord, TopicInfo, TopicPartition


def record(offset: int = 9, value: bytes = b"one") -> StoredRecord:
    """Return the record at an offset."""
    return StoredRecord("pages", 0, offset, 1_700_000_000_000, b"a", value, ())


def claimed(last: Fingerprint | None = None) -> Claim:
    """Return a claim of the log `here` whose next offset is 10."""
    row: dict[str, Any] = dict.fromkeys(("sequence", "emitted_through", "crashes"), 0)
    row |= {"log_id": "here", "topic_id": "one", "epoch": 1, "next_offset": 10, "last_offset": None}
    held = Claim(
        "shop.notes",
        TopicPartition("pages", 0),
        uuid4(),
        row,
        is_orphaned=False,
        seconds_released=None,
        suspect_records=1,
    )
    held.last = last
    return held


@pytest.mark.parametrize(("partition", "partitions"), [(0, 3), (2, 3), (2, 5)])
def test_known_partition_is_taken(partition: int, partitions: int) -> None:
    """Also beside one that was added."""
    check_partitions("shop.notes", partition, TopicInfo("pages", partitions, "here"), 3)


@pytest.mark.parametrize(("partition", "partitions"), [(3, 5), (4, 5), (0, 2)], ids=["added", "the last", "some gone"])
def test_partition_is_refused_whose_keys_have_moved(partition: int, partitions: int) -> None:
    with pytest.raises(LogMismatchError, match=f"has {partitions} partitions and had 3"):
        check_partitions("shop.notes", partition, TopicInfo("pages", partitions, "here"), 3)


def test_other_log_is_refused() -> None:
    check_log(claimed(), TopicInfo("pages", 3, "here"))
    with pytest.raises(LogMismatchError, match="was applied from here, but HEADRACE_LOG names there"):
        check_log(claimed(), TopicInfo("pages", 3, "there", "one"))


def test_other_topic_of_that_name_is_refused() -> None:
    check_log(claimed(), TopicInfo("pages", 3, "here", "one"))
    with pytest.raises(LogMismatchError, match=r"created again \(its id in Kafka is two, .* is one\); run `headr"):
        check_log(claimed(), TopicInfo("pages", 3, "here", "two"))


def test_claim_that_knows_no_topic_id_is_taken() -> None:
    """It was made before Kafka, or Headrace, knew ids."""
    held = claimed()
    held.topic_id = None
    check_log(held, TopicInfo("pages", 3, "here", "one"))


@pytest.mark.parametrize(("begin", "end"), [(0, 10), (10, 10), (10, 20), (0, 20)])
def test_log_that_holds_the_next_offset_is_taken(begin: int, end: int) -> None:
    """It may begin there, and it may end there."""
    check_bounds(claimed(), Bounds(begin, end, end))


@pytest.mark.parametrize(
    ("begin", "end", "reason"), [(11, 20, "1 records are gone"), (0, 9, "ends at offset 9")], ids=["gone", "cut"]
)
def test_log_that_lacks_the_next_offset_is_refused(begin: int, end: int, reason: str) -> None:
    with pytest.raises(LogMismatchError, match=reason):
        check_bounds(claimed(), Bounds(begin, end, end))


def test_other_record_at_the_last_offset_is_refused() -> None:
    """Records at other offsets tell nothing, and neither does a claim that has read none."""
    held = claimed(Fingerprint.of(record()))
    check_fingerprint(held, record())
    check_fingerprint(held, record(10, b"two"))
    check_fingerprint(claimed(), record(9, b"two"))
    with pytest.raises(LogMismatchError, match="another record at offset 9"):
        check_fingerprint(held, record(9, b"two"))


def test_reading_resumes_at_the_last_record_if_it_is_there() -> None:
    """So it can be compared with the one that was read."""
    assert resume_at(claimed(), Bounds(0, 20, 20)) == 10
    held = claimed(Fingerprint.of(record(7)))
    assert resume_at(held, Bounds(7, 20, 20)) == 7
    assert resume_at(held, Bounds(8, 20, 20)) == 10
