"""Turns what a run did into what is to be written: states, ids, parked events, dead letters, lanes."""

from __future__ import annotations

import time

from headrace.engine.claim import Fingerprint
from headrace.engine.commit import Effects, StateRow
from headrace.engine.lanes import Lane, Lanes, new_lane
from headrace.engine.run import Run
from headrace.item import DEAD, PARKED, Item, Outcome
from headrace.log.stored import plain
from headrace.state.cache import StateCache


def changed_states(caches: dict[str, StateCache], run: Run) -> dict[str, list[StateRow]]:
    """Return (key, next version, JSON) of the states that differ from what Postgres holds, sorted by key.

    Raises: after a run without care, whatever a state's class raises when it cannot be written as JSON.
    """
    changed: dict[str, list[StateRow]] = {}
    for name, keys in run.touched().items():
        encode, entries = caches[name].state.encode, caches[name].entries
        rows = changed[name] = []
        for key in sorted(keys):
            entry = entries[key]
            raw = run.written.get((name, key)) or encode(entry.value)
            if raw != entry.raw:
                rows.append((key, entry.version + 1, raw.decode()))
    return changed


def collect_batch(effects: Effects, lanes: Lanes) -> None:
    """Collect a batch of the log: what was applied or parked is seen; what failed opens or joins a lane.

    The batch ends before the first event that the run did not come to.
    """
    number = lanes.next_number
    for index, item in enumerate(effects.items):
        outcome = item.outcome
        if outcome is Outcome.HANDLER_ERROR and lanes.settings.retry_attempts == 1:
            outcome = item.outcome = Outcome.GAVE_UP
            effects.identities.append(item.identity)
        if outcome is Outcome.APPLIED:
            effects.identities.append(item.identity)
        elif outcome in PARKED:
            assert item.key is not None
            effects.identities.append(item.identity)
            item.number = number
            number += 1
            effects.parked.append(item)
            if item.key not in lanes.by_key and item.key not in effects.lanes:
                effects.lanes[item.key] = new_lane(lanes, item)
        elif outcome in DEAD:
            effects.dead.append((item, 1))
        elif outcome is Outcome.READY:
            effects.next_offset = item.record.offset
            effects.last = Fingerprint.of(effects.items[index - 1].record)
            effects.items = effects.items[:index]
            break


def collect_retry(effects: Effects, lanes: Lanes) -> None:
    """Collect a run of lanes: per key a prefix leaves its lane, up to the event that failed again, or that the run
    did not come to."""
    by_key: dict[str, list[Item]] = {}
    for item in effects.items:
        assert item.key is not None
        by_key.setdefault(item.key, []).append(item)
    for key, items in by_key.items():
        after = _run_lane(effects, lanes, lanes.by_key[key], items)
        if after.events > 0:
            effects.lanes[key] = after
        else:
            effects.closed.append(key)
    effects.items = [item for item in effects.items if item.outcome is not Outcome.READY]


def _run_lane(effects: Effects, lanes: Lanes, lane: Lane, items: list[Item]) -> Lane:
    now, most = time.time(), lanes.settings.retry_attempts
    after = Lane(due=now, since=lane.since, attempts=0, events=lane.events, error=lane.error)
    for index, item in enumerate(items):
        if item.outcome is Outcome.READY and index == 0:
            after.attempts = lane.attempts - 1  # it was counted, and the run did not come to it
        if item.outcome in (Outcome.BEHIND_KEY, Outcome.READY):
            break
        if item.outcome is Outcome.HANDLER_ERROR:
            attempts = lane.attempts if index == 0 else 1
            after.error = plain(str(item.error))
            if attempts < most:
                after.attempts, after.due = attempts, now + lanes.back_off(attempts)
                break
            item.outcome = Outcome.GAVE_UP
            effects.dead.append((item, most))
        elif item.outcome in DEAD:
            effects.dead.append((item, lane.attempts))
        effects.released.append(item)
        after.events -= 1
        if item.outcome is Outcome.GAVE_UP:
            break
    return after
