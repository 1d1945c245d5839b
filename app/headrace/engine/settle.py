"""Turns what a run did into what is to be written: states, ids, parked events, dead letters, lanes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.engine.claim import Fingerprint
from headrace.engine.effects import Effects, StateRow
from headrace.engine.lanes import Lane, Lanes, PolicyOf, reason_of
from headrace.engine.run import Run
from headrace.engine.verdict import APPLY, LATER, SKIP, DeadLetter, Park, verdict
from headrace.item import GIVEN_UP, Item, Outcome
from headrace.ledger.rows import Kind, stale_mark
from headrace.order.numbers import is_replay, place_in
from headrace.state.cache import StateCache

AT_ONCE = Park(attempts=0, delay=0.0)


def changed_states(caches: dict[str, StateCache], run: Run) -> dict[str, list[StateRow]]:
    """Return (key, next version, JSON) of the states that differ from what Postgres holds, sorted by key.

    Raises: after a quick run, whatever a state's class raises when it cannot be written as JSON.
    """
    changed: dict[str, list[StateRow]] = {}
    for name, keys in run.touched().items():
        encode, entries = caches[name].state.encode, caches[name].entries
        rows = changed[name] = []
        for key in sorted(keys):
            entry = entries[key]
            raw = run.written.get((name, key)) or encode(entry.value)
            if raw != entry.raw:
                rows.append((key, entry.version + 1, raw))
    return changed


def settle(effects: Effects, lanes: Lanes, *, is_probe: bool = False) -> None:
    """Fill in what becomes of each item, and count the outcomes."""
    policy_of = lanes.policy_of_probe if is_probe else lanes.policy_of
    if effects.kind is Kind.RETRY:
        _settle_lanes(effects, lanes, policy_of)
    else:
        _settle_batch(effects, lanes, policy_of)
    effects.count()


def _settle_batch(effects: Effects, lanes: Lanes, policy_of: PolicyOf) -> None:
    """An applied or parked event is seen; a failed one opens or joins its key's lane.

    The batch ends before the first event that the run did not come to.
    """
    number, seen = lanes.next_number, effects.seen
    applied = [item for item in effects.items if item.outcome is Outcome.APPLIED]
    if len(applied) == len(effects.items):  # as nearly always
        seen += applied
        return
    for index, item in enumerate(effects.items):
        if item.outcome is Outcome.APPLIED:
            seen.append(item)
            continue
        decided = verdict(item.outcome, 1, policy_of(item.handler), _cause(item))
        if decided is SKIP:
            if item.outcome is Outcome.SKIPPED_BY_HANDLER:
                seen.append(item)
            elif item.outcome is Outcome.STALE:
                item.mark = stale_mark(item.mark)
                seen.append(item)
            continue
        if decided is LATER:
            effects.next_offset = item.record.offset
            effects.last = Fingerprint.of(effects.items[index - 1].record)
            effects.items = effects.items[:index]
            return
        if isinstance(decided, DeadLetter):
            if decided.reason in GIVEN_UP:
                seen.append(item)
            item.outcome = decided.reason
            effects.dead.append((item, decided.attempts))
            continue
        assert item.key is not None
        lane = effects.lanes.get(item.key) or lanes.by_key.get(item.key)
        if lane is None:
            head = decided if isinstance(decided, Park) else AT_ONCE  # behind one that was given up on
            lane = effects.lanes[item.key] = lanes.opened(head, item)
        seen.append(item)
        item.number = lanes.number_of(item, number, lane, is_replay=effects.kind is Kind.REPLAY)
        number += 1
        effects.parked.append(item)


def _settle_lanes(effects: Effects, lanes: Lanes, policy_of: PolicyOf) -> None:
    """For each key, events leave the lane in order until one fails again or the run ended before the next."""
    by_key: dict[str, list[Item]] = {}
    for item in effects.items:
        assert item.key is not None
        by_key.setdefault(item.key, []).append(item)
    for key, items in by_key.items():
        after = _settle_lane(effects, lanes, lanes.by_key[key], items, policy_of)
        if after.events > 0 or any(item.key == key for item in effects.parked):
            effects.lanes[key] = after
        else:
            effects.closed.append(key)
    effects.items = [item for item in effects.items if item.outcome is not Outcome.READY]


def _settle_lane(effects: Effects, lanes: Lanes, lane: Lane, items: list[Item], policy_of: PolicyOf) -> Lane:
    after = Lane(due=lanes.now(), since=lane.since, events=lane.events, error=lane.error, arrival=lane.arrival)
    for index, item in enumerate(items):
        attempt = lane.attempts if index == 0 else 1
        decided = verdict(item.outcome, attempt, policy_of(item.handler), _cause(item))
        if isinstance(decided, Park):
            lanes.park(after, decided, item)
            is_same = all(each.outcome is Outcome.STALE or each.place is None for each in items[:index])
            if item.outcome is Outcome.HELD and lane.is_gap and is_same:
                _wait_on(after, lane)
            if item.outcome is Outcome.HELD:
                _sort(effects, lanes, after, items[index:])
                if lane.place:  # what is missing may be behind it
                    after.expected = None
            return after
        if isinstance(decided, DeadLetter):
            after.error = reason_of(item)
            item.outcome = decided.reason
            if item.outcome is Outcome.GAP:  # as is what follows, though this run may end before it
                _wait_on(after, lane)
            effects.dead.append((item, decided.attempts))
        elif decided is not APPLY and decided is not SKIP:
            if decided is LATER and index == 0:  # the run was counted, and did not come to it
                return msgspec.structs.replace(lane, attempts=lane.attempts - 1, is_counted=False)
            return after
        effects.released.append(item)
        after.events -= 1
    return after


def _sort(effects: Effects, lanes: Lanes, after: Lane, items: Sequence[Item]) -> None:
    """Let events be numbered by their places that are not: they were parked before their order was declared, or behind
    a head that has turned out to wait for them."""
    for item in items:
        if item.place is not None and place_in(item.number) != item.place:
            effects.released.append(item)
            number = lanes.number_of(item, item.number, after, is_replay=is_replay(item.number))
            effects.parked.append(msgspec.structs.replace(item, number=number))
            after.events -= 1  # it joins again
            after.expected = None


def _wait_on(after: Lane, lane: Lane) -> None:
    """Let the lane wait for the same missing event as before, and no longer than it would have."""
    after.due, after.is_asked, after.error_type = lane.due, lane.is_asked, lane.error_type


def _cause(item: Item) -> BaseException | None:
    """Return what the item's handler raised."""
    return item.error.__cause__ if item.error is not None else None
