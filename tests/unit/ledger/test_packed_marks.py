"""A packed window answers as a dictionary of its last ids would, whatever the hashes of the ids are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.ledger import packed_marks
from headrace.ledger.packed_marks import PackedMarks
from headrace.ledger.rows import IDENTITY_BYTES

SEGMENT_BITS = 2
SEGMENT = 1 << SEGMENT_BITS

HASHES: dict[str, Callable[[bytes], int]] = {
    "Python's own": hash,
    "the same for all": lambda identity: 0,
    "one slot, two prints": lambda identity: identity[-1] % 2 << packed_marks.PRINT_SHIFT,
    "four slots, one print": lambda identity: identity[-1] % 4,
    "negative": lambda identity: -1 - identity[-1],
}

OFFSETS = st.one_of(st.integers(0, 100), st.integers(-(2**40), 2**40), st.just(-1))
BATCHES = st.lists(
    st.lists(st.tuples(st.integers(0, 30), OFFSETS, st.integers(0, 2**32 - 1)), max_size=12), max_size=30
)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments and a table that a few ids fill."""
    monkeypatch.setattr(packed_marks, "SEGMENT_BITS", SEGMENT_BITS)
    monkeypatch.setattr(packed_marks, "SEGMENT_IDS", SEGMENT)
    monkeypatch.setattr(packed_marks, "PLACE", SEGMENT - 1)
    monkeypatch.setattr(packed_marks, "LEAST_SLOTS", 2)


def identity(number: int) -> bytes:
    """Return an identity that differs from others in its last byte alone."""
    return bytes(IDENTITY_BYTES - 1) + bytes([number])


POOL = [identity(number) for number in range(31)]


@given(
    limit=st.integers(0, 20),
    batches=BATCHES,
    by=st.sampled_from(sorted(HASHES)),
    entry_bits=st.sampled_from([0, 12, 30]),
    expected=st.integers(0, 20),
)
def test_packed_window_answers_as_its_last_ids_do(
    limit: int, batches: list[list[tuple[int, int, int]]], by: str, entry_bits: int, expected: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_marks, "hash", HASHES[by], raising=False)
        patch.setattr(packed_marks, "ENTRY_BITS", entry_bits)
        marks, added = PackedMarks(limit, expected), list[tuple[bytes, int, float]]()
        for at, batch in enumerate(batches):
            ids = [identity(number) for number, _, _ in batch]
            values = [offset << 32 | crc for _, offset, crc in batch]
            marks.add(ids, values, float(at))
            added += zip(ids, values, [float(at)] * len(batch), strict=True)
            dropped = next(ids for ids in count(0, SEGMENT) if len(added) - ids < limit + SEGMENT)
            kept = added[dropped:]
            known = {each: mark for each, mark, _ in kept}
            assert [marks.get(each) for each in POOL] == [known.get(each) for each in POOL]
            assert [each for each in POOL if not marks.keys().isdisjoint([each])] == [e for e in POOL if e in known]
            assert marks.keys().isdisjoint([each for each in POOL if each not in known])
            assert list(marks) == [each for each, _, _ in kept]
            assert (len(marks), marks.since) == (len(kept), kept[0][2] if kept else None)


def test_numbers_that_begin_anew_lead_nowhere_else() -> None:
    marks = PackedMarks(8)
    for number in range(100 * SEGMENT):
        marks.add([number.to_bytes(IDENTITY_BYTES, "big")], [number << 32], 0.0)
        newest = range(max(0, number - 7), number + 1)
        assert [marks.get(each.to_bytes(IDENTITY_BYTES, "big")) for each in newest] == [each << 32 for each in newest]
        assert (number - 20).to_bytes(IDENTITY_BYTES, "big", signed=True) not in marks


def test_entries_of_dropped_ids_lead_in_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_marks, "hash", lambda identity: identity[-1], raising=False)
    marks, numbers = PackedMarks(8), 1 << (8 + 2 * SEGMENT).bit_length() + 2
    slots = {0: 1, 5: 0, numbers: 0, numbers + 5: 1}
    for number in range(numbers + 6):  # each of the last two now links to the number that the other one has again
        marks.add([number.to_bytes(IDENTITY_BYTES - 1, "big") + bytes([slots.get(number, 2)])], [number], 0.0)
    assert not {POOL[0], POOL[1]} & set(marks)
    assert marks.keys().isdisjoint(POOL[:2])
    assert (marks.get(POOL[0]), marks.get(POOL[1])) == (None, None)


def test_offsets_far_apart_are_told_in_one_segment() -> None:
    marks, values = PackedMarks(8), [2**33 << 32 | 1, -2 - 2**33 << 32 | 2, -1, 5 << 32 | 3]
    for each, value in zip(POOL, values, strict=False):
        marks.add([each], [value], 0.0)
    assert [marks[each] for each in POOL[:4]] == values
    with pytest.raises(KeyError):
        marks[POOL[4]]


def test_unknown_id_has_what_the_caller_says() -> None:
    marks = PackedMarks(8)
    assert marks.get(POOL[0], 7) == 7
    marks.add(POOL[:1], [0], 0.0)
    assert marks.get(POOL[0], 7) == 0


def test_identity_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="different structures"):
        PackedMarks(8).add([b"short"], [0], 0.0)
