"""Whether the order of a key lets its next event run. Pure, but for the state and the item that it is given."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.errors import SequenceGapError
from headrace.item import Item, Outcome
from headrace.order.declared import InSequence, Latest, Order, gives_up
from headrace.order.numbers import is_replay
from headrace.order.state import ORDER_STATE, HeadraceOrder
from headrace.state.cache import StateCache


class RunOrder:
    """The order of the keys of one run: of events whose handler does nothing, their place may move on all the same."""

    def __init__(self, caches: Mapping[str, StateCache], written: dict[tuple[str, str], bytes]) -> None:
        """`written`: JSON by (state, key), as a careful run keeps it."""
        self._caches = caches
        self._written = written
        self.moved: set[str] = set()
        """Keys whose place has moved on without their handler."""

    def blame(self, item: Item, error: BaseException) -> None:
        """Fail an event; if the order of its key could be read, once it is known that its turn has come."""
        if ORDER_STATE in self._caches and item.key in self._caches[ORDER_STATE].entries:
            item.blame(Outcome.HANDLER_ERROR, error)
        else:
            item.failed(Outcome.HANDLER_ERROR, error)

    def admits(self, item: Item, failed_keys: set[str]) -> bool:
        """Return whether the event runs now; else it is said what becomes of it, as by `admit`."""
        assert item.handler is not None and item.handler.order is not None and item.key is not None
        return admit(item.handler.order, self._caches[ORDER_STATE].entries[item.key].value, item, failed_keys)

    def refuse(self, item: Item, failed_keys: set[str]) -> None:
        """Say what becomes of an event that is to blame if its turn has come."""
        assert item.blamed is not None
        self.admits(item, failed_keys)
        if item.outcome is item.blamed[0]:
            self.failed(item)

    def skipped(self, item: Item) -> None:
        """Let the place of the key move on, since its handler has skipped the event."""
        self._move(item, is_done=True)

    def failed(self, item: Item) -> None:
        """Let the place of the key move on to an event that has failed, if it ran without those before it.

        It has waited for them long enough: its next runs are not to wait for them again.
        """
        if item.wait_is_over:
            self._move(item, is_done=False)

    def _move(self, item: Item, *, is_done: bool) -> None:
        if item.handler is None or (order := item.handler.order) is None or item.key is None:
            return
        cache = self._caches[ORDER_STATE]
        kept = cache.entries[item.key].value
        if is_done:
            move_on(order, kept, item)
        elif is_early(order, kept, item) and (item.is_let_go or not gives_up(order)):
            pass_gap(kept, item)
        else:
            return
        self._written[ORDER_STATE, item.key] = cache.state.encode(kept)
        self.moved.add(item.key)


def admit(order: Order, kept: HeadraceOrder, item: Item, failed_keys: set[str]) -> bool:
    """Let the place of the key move on, and return True; or say what becomes of an event that may not run now.

    If it is held, or blamed, its key is among the failed ones from then on: the later events of the key wait behind it.
    """
    outcome = ruling(order, kept, item)
    if outcome is Outcome.READY:
        item.wait_is_over = item.wait_is_over and is_early(order, kept, item)
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
    if isinstance(order, Latest):
        last = kept.last.get(_name(order, item))
        is_late = last is not None and (place < last or (place == last and order.by != "time"))
        return Outcome.STALE if is_late else Outcome.READY
    expected = expected_place(order, kept)
    if expected is None or place == expected:
        return Outcome.READY
    if place < expected:
        return Outcome.READY if is_replay(item.number) else Outcome.STALE
    if not item.wait_is_over:
        return Outcome.HELD
    return Outcome.READY if item.is_let_go or order.at_end == "go_on" else Outcome.GAP


def move_on(order: Order, kept: HeadraceOrder, item: Item) -> None:
    """Follow an event that is applied, or whose handler skips it."""
    if item.place is not None:
        name = _name(order, item)
        kept.last[name] = max(item.place, kept.last.get(name, item.place))


def pass_gap(kept: HeadraceOrder, item: Item) -> None:
    """Wait no more for what is missing before an event in sequence: it is the next one."""
    assert item.place is not None
    kept.last[""] = item.place - 1


def expected_place(order: InSequence, kept: HeadraceOrder) -> int | None:
    """Return the place that is next; None: whatever comes first."""
    last = kept.last.get("")
    return order.first if last is None else last + 1


def is_early(order: Order, kept: HeadraceOrder, item: Item) -> bool:
    """True if events before it are missing."""
    if not isinstance(order, InSequence) or item.place is None:
        return False
    expected = expected_place(order, kept)
    return expected is not None and item.place > expected


def _name(order: Order, item: Item) -> str:
    """Return what the event's place is kept under: `Latest` compares events of one type, `InSequence` all of a key."""
    return item.envelope.type if isinstance(order, Latest) else ""


def _gap_error(order: Order, kept: HeadraceOrder, item: Item) -> SequenceGapError:
    assert isinstance(order, InSequence)
    expected = expected_place(order, kept)
    assert expected is not None
    return SequenceGapError(f"sequence {expected} of its key has not come", expected)
