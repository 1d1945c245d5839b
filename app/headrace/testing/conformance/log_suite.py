"""What every log promises: positions, order, reading from anywhere, waiting, bytes, bounds, refusals, membership."""

from __future__ import annotations

import asyncio
import hashlib
import time

import pytest

from headrace.errors import ConfigurationError, LogMismatchError
from headrace.log.partitioner import partition_for
from headrace.log.ports import Bounds, Log, NewRecord, Position, Reader, Record, TopicPartition
from headrace.log.sizes import size_bytes
from headrace.testing.conformance.base import ATOMIC_PUBLISH, DEADLINE_SECONDS, MANY_BYTES, SURVIVES_RESTART, OpenLog
from headrace.testing.conformance.membership_suite import MembershipSuite, Seat

__all__ = ["LogSuite", "OpenLog", "Seat"]


class LogSuite(MembershipSuite):
    """Subclass it, give the fixture `open_log`, and name what is not promised in `unclaimed`."""

    # Publishing

    async def test_publish_returns_positions_in_the_order_given(self, log: Log, topic: str) -> None:
        await log.create(topic, 4)
        records = [record(topic, key=b"k%d" % (n % 7), value=b"v%d" % n) for n in range(100)]

        positions = await log.publish(records)

        stored = await read_all(log, topic, 4, 100)
        assert [stored[position].value for position in positions] == [new.value for new in records]

    async def test_offsets_grow_per_partition(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)

        positions = [p for _ in range(5) for p in await log.publish([record(topic), record(topic)])]

        offsets = [position.offset for position in positions]
        assert offsets == sorted(set(offsets))

    async def test_the_partition_of_a_key_is_that_of_javas_murmur2(self, log: Log, topic: str) -> None:
        await log.create(topic, 6)
        keys = [b"", b"a", "grün".encode(), *(b"customer-%d" % n for n in range(50))]

        positions = await log.publish([record(topic, key=key) for key in keys])

        assert [position.partition for position in positions] == [partition_for(key, 6) for key in keys]

    async def test_records_without_a_key_are_spread(self, log: Log, topic: str) -> None:
        await log.create(topic, 3)

        positions = await log.publish([record(topic, key=None) for _ in range(30)])

        assert {position.partition for position in positions} == {0, 1, 2}

    async def test_publishing_nothing_is_no_error(self, log: Log) -> None:
        assert await log.publish([]) == []

    async def test_concurrent_publishers_keep_the_order_of_their_keys(self, log: Log, topic: str) -> None:
        await log.create(topic, 3)

        async def publisher(name: int) -> list[Position]:
            kept: list[Position] = []
            for turn in range(10):
                kept += await log.publish([record(topic, b"key-%d" % name, b"%d" % (turn * 4 + n)) for n in range(4)])
            return kept

        positions = [position for kept in await asyncio.gather(*map(publisher, range(20))) for position in kept]

        assert len(set(positions)) == 800
        stored = await read_all(log, topic, 3, 800)
        assert set(stored) == set(positions)
        values: dict[bytes, list[int]] = {}
        for position in sorted(stored):
            values.setdefault(stored[position].key or b"", []).append(int(stored[position].value or b"-1"))
        assert all(numbers == list(range(40)) for numbers in values.values())

    async def test_a_cancelled_publisher_disturbs_no_other(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)
        publishing = [asyncio.create_task(log.publish([record(topic, value=b"%d" % n)])) for n in range(20)]
        await asyncio.sleep(0)

        publishing[3].cancel()

        results = await asyncio.gather(*publishing, return_exceptions=True)
        kept = [result for n, result in enumerate(results) if n != 3]
        assert not any(isinstance(result, BaseException) for result in kept)
        assert await log.publish([record(topic, value=b"after")])

    async def test_publishing_to_an_unknown_topic_keeps_nothing(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)

        with pytest.raises(LogMismatchError, match=f"{topic}-missing"):
            await log.publish([record(topic), record(f"{topic}-missing")])

        assert await log.topics([f"{topic}-missing"]) == {}
        if self.unclaimed.get(ATOMIC_PUBLISH) is None:
            assert await log.bounds([TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): Bounds(0, 0, 0)}

    # Bytes

    @pytest.mark.parametrize(
        ("key", "value", "headers"),
        [
            (None, b"without a key", []),
            (b"without a value", None, []),
            (None, None, [("both", b"missing")]),
            (b"", b"", []),
            (
                b"\x00\xff",
                b"\x00\xfe\x80",
                [("raw", b"\xff\x00\xc3"), ("raw", b"again"), ("leer", b""), ("größe", b"1")],
            ),
            (b"large", hashlib.shake_128(b"noise").digest(900_000), [("content-type", b"application/octet-stream")]),
        ],
        ids=["no-key", "no-value", "neither", "empty", "not-text", "900-kB"],
    )
    async def test_a_record_comes_back_byte_for_byte(
        self, log: Log, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        await log.create(topic, 2)
        before = time.time_ns() // 1_000_000

        (position,) = await log.publish([NewRecord(topic=topic, key=key, value=value, headers=headers)])

        stored = (await read_all(log, topic, 2, 1))[position]
        assert (stored.key, stored.value, list(stored.headers)) == (key, value, headers)
        assert before - 1 <= stored.timestamp <= time.time_ns() // 1_000_000

    # Reading

    async def test_a_reader_starts_at_any_offset(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)
        positions = await log.publish([record(topic, value=b"%d" % n) for n in range(20)])

        for start in (0, 7, 19):
            reader = await log.reader({TopicPartition(topic, 0): positions[start].offset})
            found = await read(reader, 20 - start)
            await reader.close()
            assert [int(stored.value or b"-1") for stored in found] == list(range(start, 20))

    async def test_a_reader_returns_each_record_once_and_in_order(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)
        reader = await log.reader({TopicPartition(topic, 0): 0})
        offsets: list[int] = []

        for turn in range(1, 4):
            await log.publish([record(topic) for _ in range(25)])
            while len(offsets) < 25 * turn:
                offsets += [stored.offset for stored in await read(reader, 1, max_records=7)]
        assert await reader.fetch(10, MANY_BYTES, 0.05) == {}
        await reader.close()

        assert len(offsets) == 75
        assert offsets == sorted(set(offsets))

    async def test_fetch_returns_at_most_what_was_asked_for(self, log: Log, topic: str) -> None:
        await log.create(topic, 2)
        await log.publish([record(topic, key=None) for _ in range(40)])
        reader = await log.reader({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0})
        seen = 0

        while seen < 40:
            fetched = await reader.fetch(7, MANY_BYTES, 1.0)
            size = sum(map(len, fetched.values()))
            assert size <= 7
            assert all(
                stored.partition == partition.partition for partition, many in fetched.items() for stored in many
            )
            seen += size
        await reader.close()

        assert seen == 40

    @pytest.mark.parametrize("max_bytes", [1, 250, 1_000])
    async def test_fetch_returns_at_most_the_bytes_asked_for(self, log: Log, topic: str, max_bytes: int) -> None:
        await log.create(topic, 2)
        positions = await log.publish([record(topic, key=None, value=bytes(90)) for _ in range(40)])
        reader = await log.reader({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0})
        seen: list[Position] = []

        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(seen) < 40:
                fetched = [one for many in (await reader.fetch(1_000, max_bytes, 1.0)).values() for one in many]
                assert len(fetched) <= 1 or sum(map(size_bytes, fetched)) <= max_bytes
                seen += [Position(one.topic, one.partition, one.offset) for one in fetched]
        await reader.close()

        assert sorted(seen) == sorted(positions)
        assert [p for p in seen if p.partition == 1] == sorted(p for p in positions if p.partition == 1)

    async def test_a_record_larger_than_max_bytes_comes_alone(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)
        await log.publish([record(topic, value=bytes(size)) for size in (10, 200_000, 10, 10)])
        reader = await log.reader({TopicPartition(topic, 0): 0})
        sizes: list[list[int]] = []

        async with asyncio.timeout(DEADLINE_SECONDS):
            while sum(map(len, sizes)) < 4:
                for many in (await reader.fetch(1_000, 1_000, 1.0)).values():
                    sizes.append([len(stored.value or b"") for stored in many])
                    assert reader.position(TopicPartition(topic, 0)) == many[-1].offset + 1
        await reader.close()

        assert [200_000] in sizes

    async def test_the_position_is_past_what_was_read(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)
        partition = TopicPartition(topic, 0)
        await log.publish([record(topic) for _ in range(10)])
        reader = await log.reader({partition: 2})
        assert reader.position(partition) == 2

        found = await read(reader, 3, max_records=3)
        assert reader.position(partition) == found[-1].offset + 1

        await read(reader, 5)
        assert reader.position(partition) == (await log.bounds([partition]))[partition].end
        await reader.close()

    async def test_fetch_returns_nothing_when_nothing_comes(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)
        reader = await log.reader({TopicPartition(topic, 0): 0})

        assert await reader.fetch(10, MANY_BYTES, 0.05) == {}
        await reader.close()

    async def test_fetch_waits_and_wakes_when_something_is_published(self, log: Log, topic: str) -> None:
        await log.create(topic, 2)
        reader = await log.reader({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0})
        waiting = asyncio.create_task(reader.fetch(10, MANY_BYTES, DEADLINE_SECONDS))
        await asyncio.sleep(0)

        await log.publish([record(topic, value=b"wake")])

        async with asyncio.timeout(DEADLINE_SECONDS / 2):
            (found,) = (await waiting).values()
        assert [stored.value for stored in found] == [b"wake"]
        await reader.close()

    async def test_readers_do_not_share_their_progress(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)
        await log.publish([record(topic, value=b"%d" % n) for n in range(5)])
        readers = [await log.reader({TopicPartition(topic, 0): 0}) for _ in range(2)]

        found = [[stored.value for stored in await read(reader, 5)] for reader in readers]

        assert found[0] == found[1] == [b"%d" % n for n in range(5)]
        for reader in readers:
            await reader.close()

    async def test_a_position_past_the_end_is_refused(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)
        await log.publish([record(topic) for _ in range(3)])

        reader = await log.reader({TopicPartition(topic, 0): 8})

        with pytest.raises(LogMismatchError, match=r"8.*created again or truncated"):
            await read(reader, 1)
        await reader.close()

    async def test_a_reader_of_an_unknown_topic_is_refused(self, log: Log, topic: str) -> None:
        with pytest.raises(LogMismatchError, match="does not exist"):
            await log.reader({TopicPartition(topic, 0): 0})

        assert await log.topics([topic]) == {}

    # Topics

    async def test_bounds_are_the_offsets_that_are_held(self, log: Log, topic: str) -> None:
        await log.create(topic, 2)
        partitions = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
        assert await log.bounds(partitions) == dict.fromkeys(partitions, Bounds(0, 0, 0))

        positions = await log.publish([record(topic, key=b"k%d" % n) for n in range(20)])

        for partition, bounds in (await log.bounds(partitions)).items():
            offsets = [position.offset for position in positions if position.partition == partition.partition]
            assert bounds == Bounds(min(offsets), max(offsets) + 1, max(offsets) + 1)
        assert await log.bounds([]) == {}

    async def test_a_time_is_that_of_the_first_record_since(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)
        place = TopicPartition(topic, 0)
        assert await log.offset_at(place, 0) == 0
        for _ in range(3):
            await log.publish([record(topic)])
        times = [each.timestamp for _, each in sorted((await read_all(log, topic, 1, 3)).items())]
        assert [await log.offset_at(place, at) for at in times] == [times.index(at) for at in times]
        assert (await log.offset_at(place, 0), await log.offset_at(place, max(times) + 1)) == (0, 3)
        with pytest.raises(LogMismatchError):
            await log.offset_at(TopicPartition(topic, 1), 0)

    async def test_nothing_but_create_makes_a_topic(self, log: Log, topic: str) -> None:
        partition = TopicPartition(topic, 0)
        for call in (log.publish([record(topic)]), log.bounds([partition]), log.reader({partition: 0})):
            with pytest.raises(LogMismatchError):
                await call

        assert await log.topics([topic]) == {}

    async def test_a_cancelled_question_disturbs_no_other(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)
        partition = TopicPartition(topic, 0)

        for asking in (log.bounds([partition]), log.topics([topic]), log.create(topic, 1)):
            asked: asyncio.Future[object] = asyncio.ensure_future(asking)
            other = asyncio.ensure_future(log.bounds([partition]))
            await asyncio.sleep(0)
            asked.cancel()
            await asyncio.wait({asked})
            assert await other == {partition: Bounds(0, 0, 0)}

        assert await log.publish([record(topic)])

    async def test_bounds_of_what_does_not_exist_are_refused(self, log: Log, topic: str) -> None:
        with pytest.raises(LogMismatchError, match="does not exist"):
            await log.bounds([TopicPartition(topic, 0)])
        await log.create(topic, 2)
        with pytest.raises(LogMismatchError, match="no partition 2"):
            await log.bounds([TopicPartition(topic, 2)])

    async def test_a_topic_is_created_once(self, log: Log, topic: str) -> None:
        await log.create(topic, 3)
        (before,) = (await log.topics([topic])).values()
        await log.publish([record(topic)])

        await log.create(topic, 5)

        (after,) = (await log.topics([topic])).values()
        assert before == after
        assert (after.topic, after.partitions) == (topic, 3)
        assert after.log_id

    async def test_unknown_topics_are_left_out(self, log: Log, topic: str) -> None:
        await log.create(topic, 1)

        assert set(await log.topics([topic, f"{topic}-missing", "not a name"])) == {topic}
        assert await log.topics([]) == {}

    @pytest.mark.parametrize("name", ["", "a/b", "grün", "..", "x" * 250])
    async def test_an_illegal_topic_name_is_refused(self, log: Log, name: str) -> None:
        with pytest.raises(ConfigurationError, match="topic name"):
            await log.create(name, 1)

    async def test_a_topic_needs_a_partition(self, log: Log, topic: str) -> None:
        with pytest.raises(ConfigurationError, match="partitions"):
            await log.create(topic, 0)

    # Lifetime

    async def test_what_was_published_survives_a_restart(self, open_log: OpenLog, topic: str) -> None:
        self._need(SURVIVES_RESTART)
        async with open_log() as log:
            await log.create(topic, 2)
            positions = await log.publish([record(topic, key=b"%d" % n, value=b"%d" % n) for n in range(50)])
            before = await log.topics([topic])

        async with open_log() as log:
            stored = await read_all(log, topic, 2, 50)
            assert [stored[position].value for position in positions] == [b"%d" % n for n in range(50)]
            assert await log.topics([topic]) == before
            (later,) = await log.publish([record(topic, key=b"1")])
            assert later.offset > max(p.offset for p in positions if p.partition == later.partition)


def record(topic: str, key: bytes | None = b"key", value: bytes | None = b"value") -> NewRecord:
    """Return a record with a header."""
    return NewRecord(topic=topic, key=key, value=value, headers=[("name", b"content")])


async def read(reader: Reader, count: int, max_records: int = 1_000) -> list[Record]:
    """Fetch until there are at least `count` records."""
    found: list[Record] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(found) < count:
            for many in (await reader.fetch(max_records, MANY_BYTES, 1.0)).values():
                found += many
    return found


async def read_all(log: Log, topic: str, partitions: int, count: int) -> dict[Position, Record]:
    """Return the topic's first `count` records by position."""
    reader = await log.reader({TopicPartition(topic, number): 0 for number in range(partitions)})
    try:
        return {Position(r.topic, r.partition, r.offset): r for r in await read(reader, count)}
    finally:
        await reader.close()
