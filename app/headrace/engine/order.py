"""Whether the order of a key lets its next event run. Pure, but for the state and the item that it is given."""

from __future__ import annotations

from headrace.errors import SequenceGapError
from headrace.item import Item, Outcome
from headrace.order.declared import InSequence, Latest, Order
from headrace.order.numbers import is_replay
from headrace.order.state import HeadraceOrder


def admit(order: Order, kept: HeadraceOrder, item: Item, failed_keys: set[str]) -> bool:
    """Let the place of the key move on, and return True; or say what becomes of an event that may not run now.

    If it is held, or blamed, its key is among the failed ones from then on: the later events of the key wait behind it.
    """
    outcome = ruling(order, kept, item)
    if outcome is Outcome.READY and item.blamed is not None:
        assert item.key is not None
        failed_keys.add(item.key)
        item.failed(*item.blamed)
        return False
    if outcome is Outcome.READY:
        move_on(order, kept, item)
        return True
    item.outcome = outcome
    if outcome is not Outcome.STALE:
        item.failed(outcome, _gap_error(order, kept, item))
    if outcome is Outcome.HELD:
        assert item.key is not None
        failed_keys.add(item.key)
    return False


def ruling(order: Order, kept: HeadraceOrder, item: Item) -> Outcome:
    """Return READY if the event may run now; else what becomes of it: STALE, HELD or GAP."""
    place = item.place
    if place is None:
        return Outcome.READY
    last = kept.last.get(_name(order, item))
    if isinstance(order, Latest):
        is_late = last is not None and (place < last or (place == last and order.by != "time"))
        return Outcome.STALE if is_late else Outcome.READY
    expected = order.first if last is None else last + 1
    if expected is None or place == expected:
        return Outcome.READY
    if place < expected:
        return Outcome.READY if is_replay(item.number) else Outcome.STALE
    if not item.wait_is_over:
        return Outcome.HELD
    return Outcome.READY if order.at_end == "go_on" else Outcome.GAP


def move_on(order: Order, kept: HeadraceOrder, item: Item) -> None:
    """Follow an event that is applied, or whose handler skips it."""
    if item.place is not None:
        name = _name(order, item)
        kept.last[name] = max(item.place, kept.last.get(name, item.place))


def _name(order: Order, item: Item) -> str:
    """Return what the event's place is kept under: `Latest` compares events of one type, `InSequence` all of a key."""
    return item.envelope.type if isinstance(order, Latest) else ""


def _gap_error(order: Order, kept: HeadraceOrder, item: Item) -> SequenceGapError:
    assert isinstance(order, InSequence)
    last = kept.last.get("")
    expected = order.first if last is None else last + 1
    assert expected is not None
    return SequenceGapError(f"sequence {expected} of its key has not come", expected)
