"""What `_speedups.c` computes itself, and what becomes of its memory; its twins are compared where they are."""

from __future__ import annotations

import gc
import sys
import weakref
from hashlib import blake2b
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec
import pytest

from headrace.cloudevents.record import OWN_HEADER, is_own
from headrace.effects.calls import Call, Calls
from headrace.engine.decode import BatchDecoder
from headrace.event import Event, event
from headrace.item import Item, Outcome
from headrace.log.ports import Record, StoredRecord
from headrace.registry import Registry
from tests.support.in_c import LACKS_C, needs_c

if TYPE_CHECKING or not LACKS_C:
    from headrace._speedups import Plain, read_records, sizes

pytestmark = needs_c
BEYOND = 2**31


class Loose(Event, type="loose", topic="letters", key="sheet"):
    sheet: str


@event(type="stamped", topic="letters", key="letter")
class Stamped(msgspec.Struct):
    letter: str | int
    text: str = ""


class Hostile(msgspec.Struct):
    """An event whose check changes what is being decoded."""

    letter: str

    def __post_init__(self) -> None:
        if self.letter == "clear":
            RECORDS.clear()
        if self.letter == "raise":
            raise KeyError(self.letter)


event(type="hostile", topic="letters", key="letter")(Hostile)
RECORDS: list[Record] = []


@pytest.fixture(scope="module")
def decoder() -> BatchDecoder:
    registry = Registry("post")
    subscription = registry.add_subscription("letters", "earliest")

    @subscription.on(Stamped, Hostile, Loose)
    def read(event: Stamped | Hostile | Loose) -> None: ...

    registry.complete()
    return BatchDecoder(registry.subscriptions["letters"], registry.types, registry.decoders)


def record(
    event_id: str = "1", source: str = "/post", data: bytes = b'{"letter":"a"}', offset: int = 0, type: str = "stamped"
) -> StoredRecord:
    head = f'{{"specversion":"1.0","id":"{event_id}","source":"{source}","type":"{type}","data":'
    return StoredRecord("letters", 0, offset, 0, b"a", head.encode() + data + b"}", (OWN_HEADER,))


def made_in_c(decoder: BatchDecoder, *records: Record) -> list[Item]:
    return decoder._plain.items(records, 0, {}, {})


def test_hash_is_blake2b_for_every_length(decoder: BatchDecoder) -> None:
    """Over the ends of one, two and more blocks of 128 bytes."""
    for length in [*range(1, 300), 500, 1_000, 1_024]:
        for source in ("/post", "/" * 1_500):
            (item,) = made_in_c(decoder, record("i" * length, source))
            text = f"{len(source)}:{source}7:stamped{'i' * length}"
            assert item.identity == blake2b(text.encode(), digest_size=16).digest()


def test_mark_is_offset_and_crc_for_every_length(decoder: BatchDecoder) -> None:
    for length in [*range(40), 255, 256, 5_000]:
        data = msgspec.json.encode({"letter": "a", "text": "x" * length})
        for offset in (0, 7, BEYOND - 1, BEYOND, 2**33, 2**62):
            (item,) = made_in_c(decoder, record(data=data, offset=offset))
            assert item.mark == offset << 32 | crc32(data)


def test_key_is_text_whatever_its_field_is(decoder: BatchDecoder) -> None:
    for data, key in ((b'{"letter":7}', "7"), (b'{"letter":"\\u00e4"}', "ä"), (b'{"letter":""}', "1")):
        (item,) = made_in_c(decoder, record(data=data))
        assert (item.key, item.outcome) == (key, Outcome.READY)


def test_data_that_are_no_json_are_left_alone(decoder: BatchDecoder) -> None:
    """Whatever the decoder of an event type takes: Pydantic's knows NaN, and JSON does not."""
    values = [
        "NaN",
        "-Infinity",
        "01",
        "1.",
        "+1",
        ".5",
        "-",
        "1e",
        "tru",
        '"\\ud800"',
        '"\\x"',
        '"\\u12g4"',
        '"\t"',
        "[1,]",
    ]
    for value in [
        *values,
        '"\\ud800"',
        "[1",
        "{",
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        "{1:2}",
        "'a'",
        "1 2",
        "nullx",
        "[]]",
        "\x0b1",
    ]:
        wrong = record(data=f'{{"sheet":"a","other":{value}}}'.encode(), type="loose")
        assert made_in_c(decoder, wrong) == [], value
        assert decoder.decode([wrong], {})[0].outcome in (Outcome.DECODE, Outcome.READY), value
    good = [
        "0",
        "-0.5e+3",
        "1E5",
        "true",
        "false",
        "null",
        '"\\u00e4\\n\\/"',
        "[ ]",
        "{ }",
        '[1, {"a": [2]}]',
        '"\u00e4"',
    ]
    for value in good:
        (item,) = made_in_c(decoder, record(data=f'{{"sheet":"a", "other": {value}}}'.encode(), type="loose"))
        assert item.key == "a"


def test_cycle_through_it_is_freed(decoder: BatchDecoder) -> None:
    """Handlers lead to their platform, and that leads to the decoder."""

    class Owner:
        plain: Any

    owner = Owner()
    owner.plain = type(decoder._plain)(Item, Outcome.READY, owner, is_own, frozenset(), ())  # type: ignore[call-arg]
    freed = weakref.ref(owner)
    del owner
    gc.collect()
    assert freed() is None


def test_data_that_may_be_too_deep_are_left_alone(decoder: BatchDecoder) -> None:
    deep = b'{"letter":"a","more":' + b"[" * 128 + b"]" * 128 + b"}"
    assert made_in_c(decoder, record(data=deep)) == []
    assert decoder.decode([record(data=deep)], {})[0].outcome is Outcome.READY


def test_check_that_changes_the_batch_breaks_nothing(decoder: BatchDecoder) -> None:
    RECORDS[:] = [record("1"), record("2", data=b'{"letter":"clear"}', type="hostile"), record("3")]
    items = decoder._plain.items(RECORDS, 0, {}, {})
    assert [item.key for item in items] == ["a", "clear"]
    (bad,) = decoder.decode([record(data=b'{"letter":"raise"}', type="hostile")], {})
    assert bad.outcome is Outcome.SCHEMA


def test_misuse_is_an_error_and_no_crash(decoder: BatchDecoder) -> None:
    """One that was not made, was made wrongly, or is asked for a record before the first."""
    body = bytes([0, 0, 0, 1, 4]) + b"{}" + bytes([2, 24]) + b"content-type" + bytes([56]) + OWN_HEADER[1]
    records = read_records(bytes([2 * len(body)]) + body, 0, 1, "letters", 0, 5, 1_000, -1, 0)
    assert records is not None
    unmade, wrong = Plain.__new__(Plain), Plain.__new__(Plain)
    with pytest.raises(TypeError):
        wrong.__init__(1)  # type: ignore[misc]
    for plain in (unmade, wrong):
        with pytest.raises(ValueError, match="not made"):
            plain.items(records, 0, {}, {})
    with pytest.raises(ValueError, match="no record"):
        decoder._plain.items(records, -1, {}, {})
    assert decoder._plain.items(records, 5, {}, {}) == []
    with pytest.raises(TypeError):
        decoder._plain.__init__(*[None] * 6)  # type: ignore[misc]


def test_sizes_are_told_of_its_own_records_alone() -> None:
    batch = bytes([2 * 9, 0, 0, 0, 2, ord("k"), 4, ord("v"), ord("v"), 0])
    records = read_records(batch, 0, 1, "letters", 0, 5, 1_000, -1, 0)
    assert records is not None
    (read,) = records
    assert (read.offset, read.key, read.value, read.headers) == (5, b"k", b"vv", [])
    assert sizes([read], 64) == [3]
    assert sizes([read, record()], 64) is None
    assert read_records(batch[:-1], 0, 1, "letters", 0, 5, 1_000, -1, 0) is None


def test_call_that_waits_keeps_its_own_record_alone() -> None:
    batch = bytes([2 * 9, 0, 0, 0, 2, ord("k"), 4, ord("v"), ord("v"), 0])
    records = read_records(batch, 0, 1, "letters", 0, 5, 1_000, -1, 0)
    assert records is not None
    call = Call(Item(records[0]), SimpleNamespace(handler=None), 1)  # type: ignore[arg-type]
    Calls().push([call])
    assert call.item.record == StoredRecord("letters", 0, 5, 1_000, b"k", b"vv", [])


def test_no_memory_is_lost(decoder: BatchDecoder) -> None:
    """Neither for what becomes an item, nor for what does not."""
    batch = bytes([2 * 9, 0, 0, 0, 2, ord("k"), 4, ord("v"), ord("v"), 0])
    name = bytes([2 * 11, 0, 0, 0, 2, ord("k"), 2, ord("v"), 2, 2, 0xFF, 1])
    records = [record(str(number)) for number in range(20)]
    wrong = [record(data=data) for data in (b"{}", b"{", b"", b'{"letter":1.5}', b'{"letter":"\xff"}')]
    wrong += [record("ä\xff"), record(type="strange"), record(data=b'{"letter":"raise"}', type="hostile")]

    def everything() -> None:
        made_in_c(decoder, *records)
        for each in wrong:
            made_in_c(decoder, each)
        read_records(batch, 0, 1, "letters", 0, 5, 1_000, -1, 0)
        read_records(batch, 0, 2, "letters", 0, 5, 1_000, -1, 0)
        with pytest.raises(UnicodeDecodeError):
            read_records(name, 0, 1, "letters", 0, 5, 1_000, -1, 0)

    for _ in range(20):
        everything()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(200):
        everything()
    gc.collect()  # errors and their tracebacks
    assert sys.getallocatedblocks() - before < 100
