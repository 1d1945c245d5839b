"""The window remembers at least as many ids as it is told, and forgets whole batches, the oldest first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.envelope import identity
from headrace.ledger.packed_marks import PackedMarks
from headrace.ledger.rows import pack_marks
from headrace.ledger.window import PLAIN_IDS, DedupeWindow, PackedRows, window_of
from headrace.settings import EngineSettings


def ids(*numbers: int) -> list[bytes]:
    """Return the identities of numbered events."""
    return [identity("/tests", "noted", str(number)) for number in numbers]


def _add(window: DedupeWindow, identities: list[bytes], at: float) -> None:
    window.add(identities, range(len(identities)), at)


def test_oldest_batch_leaves_once_the_others_fill_the_window() -> None:
    window = DedupeWindow(4)
    _add(window, ids(1, 2), 1.0)
    _add(window, ids(3, 4), 2.0)
    _add(window, ids(5), 3.0)
    assert set(window.marks) == set(ids(1, 2, 3, 4, 5)), "without the first batch only three would be known"
    _add(window, ids(6), 4.0)
    assert set(window.marks) == set(ids(3, 4, 5, 6))
    assert window.since == 2.0


def test_batch_larger_than_the_window_is_known_whole() -> None:
    window = DedupeWindow(2)
    _add(window, ids(*range(10)), 1.0)
    assert len(window) == 10


def test_empty_batch_changes_nothing() -> None:
    window = DedupeWindow(1)
    _add(window, ids(1), 1.0)
    _add(window, [], 2.0)
    assert set(window.marks) == set(ids(1))
    assert window.since == 1.0


def _positions(offsets: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(offsets, st.integers(0, 2**32 - 1)), max_size=20)


@given(_positions(st.integers(0, 2**32 - 1)) | _positions(st.integers(-(2**63), 2**63 - 1)))
def test_packed_ids_come_back_with_their_marks(positions: list[tuple[int, int]]) -> None:
    window, marks = DedupeWindow(100), [offset << 32 | crc for offset, crc in positions]
    known = ids(*range(len(marks)))
    window.add_packed(b"".join(known), pack_marks(marks), 1.0)
    assert window.marks == dict(zip(known, marks, strict=True))


def test_ids_of_a_row_without_marks_are_known_all_the_same() -> None:
    window = DedupeWindow(10)
    window.add_packed(b"".join(ids(1, 2)), None, 1.0)
    assert window.marks == dict.fromkeys(ids(1, 2), -1)


@given(st.integers(0, 20), st.lists(st.integers(0, 7), max_size=40))
def test_last_ids_up_to_the_limit_are_always_known(limit: int, sizes: list[int]) -> None:
    window, seen = DedupeWindow(limit), list[bytes]()
    for at, size in enumerate(sizes):
        batch = ids(*range(len(seen), len(seen) + size))
        seen += batch
        _add(window, batch, float(at))
        assert set(seen[len(seen) - limit :] if limit else []) <= window.marks.keys()
        assert len(window) <= limit + 2 * max(sizes)


def test_window_of_the_default_size_is_a_dictionary() -> None:
    assert type(DedupeWindow(EngineSettings().dedupe_window_ids).marks) is dict


def test_larger_window_is_packed_and_loaded_from_the_ledger() -> None:
    rows: PackedRows = [
        (b"".join(ids(3)), pack_marks([9 << 32 | 3]), 2.0),
        (b"".join(ids(1, 2)), pack_marks([7, 8]), 1.0),
    ]
    window = window_of(rows, PLAIN_IDS + 1)
    assert type(window.marks) is PackedMarks
    assert window.marks == dict(zip(ids(1, 2, 3), [7, 8, 9 << 32 | 3], strict=True))
    _add(window, [], 3.0)
    assert (len(window), window.since) == (3, 1.0)
