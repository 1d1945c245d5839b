"""How long the lists of batch handlers become."""

from __future__ import annotations

from headrace.engine.list_sizes import FIRST, MOST, QUICK_SECONDS, SLOW_SECONDS, ListSizes
from headrace.handlers.subscription import Handler
from headrace.item import Item

HANDLER = Handler(lambda: None, {})


def test_list_grows_while_calls_are_quick() -> None:
    sizes, lengths = ListSizes(), []
    for _ in range(10):
        lengths.append(sizes.next(HANDLER))
        sizes.took(HANDLER, lengths[-1], QUICK_SECONDS / 2)
    assert lengths[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert lengths[-1] == MOST


def test_list_halves_after_a_slow_call_and_stays_between() -> None:
    sizes = ListSizes()
    sizes.took(HANDLER, 64, SLOW_SECONDS * 2)
    assert sizes.next(HANDLER) == 32
    sizes.took(HANDLER, 32, (QUICK_SECONDS + SLOW_SECONDS) / 2)
    assert sizes.next(HANDLER) == 32


def test_short_list_does_not_shorten_the_next() -> None:
    sizes = ListSizes()
    sizes.took(HANDLER, 3, 0.001)
    assert sizes.next(HANDLER) == FIRST


def test_events_of_a_call_that_did_not_return_come_one_at_a_time() -> None:
    sizes = ListSizes()
    sizes.overdue(HANDLER, 3)
    for _ in range(3):
        assert sizes.next(HANDLER) == 1
        sizes.took(HANDLER, 1, 0.001)
    assert sizes.next(HANDLER) == 1
    sizes.took(HANDLER, 1, 0.001)
    assert sizes.next(HANDLER) == 2


def test_lanes_and_the_handlers_own_limit_are_kept() -> None:
    limited = Handler(lambda: None, {})
    limited.most_events = 5
    assert ListSizes().next(limited) == 5
    assert ListSizes(1).next(HANDLER) == 1


def test_items_are_told_apart_in_a_list_by_themselves() -> None:
    """Two items may be equal in every field: what they emit is counted for each."""
    assert len({Item(record=None), Item(record=None)}) == 2  # type: ignore[arg-type]
