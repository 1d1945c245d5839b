"""The window remembers at least as many ids as it is told, and forgets whole batches, the oldest first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.dedupe import DedupeWindow
from headrace.envelope import identity


def ids(*numbers: int) -> list[bytes]:
    """Return the identities of numbered events."""
    return [identity("/tests", "noted", str(number)) for number in numbers]


def test_oldest_batch_leaves_once_the_others_fill_the_window() -> None:
    window = DedupeWindow(4)
    window.add(ids(1, 2), 1.0)
    window.add(ids(3, 4), 2.0)
    window.add(ids(5), 3.0)
    assert window.ids == set(ids(1, 2, 3, 4, 5)), "without the first batch only three would be known"
    window.add(ids(6), 4.0)
    assert window.ids == set(ids(3, 4, 5, 6))
    assert window.since == 2.0


def test_batch_larger_than_the_window_is_known_whole() -> None:
    window = DedupeWindow(2)
    window.add(ids(*range(10)), 1.0)
    assert len(window) == 10


def test_empty_batch_changes_nothing() -> None:
    window = DedupeWindow(1)
    window.add(ids(1), 1.0)
    window.add([], 2.0)
    assert window.ids == set(ids(1))
    assert window.since == 1.0


def test_packed_ids_are_the_same_ids() -> None:
    window = DedupeWindow(10)
    window.add_packed(b"".join(ids(1, 2, 3)), 1.0)
    assert window.ids == set(ids(1, 2, 3))


@given(st.integers(0, 20), st.lists(st.integers(0, 7), max_size=40))
def test_last_ids_up_to_the_limit_are_always_known(limit: int, sizes: list[int]) -> None:
    window, seen = DedupeWindow(limit), list[bytes]()
    for at, size in enumerate(sizes):
        batch = ids(*range(len(seen), len(seen) + size))
        seen += batch
        window.add(batch, float(at))
        assert set(seen[len(seen) - limit :] if limit else []) <= window.ids
        assert len(window) <= limit + 2 * max(sizes)
