"""The partitioner agrees with Java's murmur2."""

from __future__ import annotations

import pytest

from headrace.log.partitioner import murmur2, partition_for


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_kafkas_own_tests(key: bytes, signed: int) -> None:
    """Source: org.apache.kafka.common.utils.UtilsTest.testMurmur2."""
    assert murmur2(key) == signed & 0xFFFFFFFF


def test_the_sign_bit_is_dropped_before_the_remainder() -> None:
    assert partition_for(b"21", 7) == (-973932308 & 0x7FFFFFFF) % 7


def test_every_partition_is_reached() -> None:
    assert {partition_for(b"key-%d" % n, 6) for n in range(100)} == set(range(6))
