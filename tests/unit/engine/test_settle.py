"""What a run did becomes what is written: nothing twice, nothing lost, in order."""

from __future__ import annotations

import time

import msgspec
import pytest
from pydantic import BaseModel

from headrace import Event, State
from headrace.emits.emitter import Emitter
from headrace.engine.effects import Effects
from headrace.engine.lanes import Lane, Lanes
from headrace.engine.run import Run
from headrace.engine.settle import changed_states, settle
from headrace.engine.threads import HandlerThreads
from headrace.envelope import Envelope
from headrace.errors import HandlerError, SequenceGapError
from headrace.handlers.policy import Policy
from headrace.handlers.subscription import Subscription
from headrace.item import Item, Outcome
from headrace.ledger.rows import Kind
from headrace.log.ports import StoredRecord
from headrace.order.numbers import number_of
from headrace.state.cache import StateCache
from headrace.telemetry.tracing import Tracing

APPLIED, FAILED, BEHIND, READY = Outcome.APPLIED, Outcome.HANDLER_ERROR, Outcome.BEHIND_KEY, Outcome.READY


def test_what_is_applied_or_parked_is_seen() -> None:
    """A dead letter is not, so that its event may come again."""
    items = [_item(0, "a", APPLIED), _item(1, "b", FAILED), _item(2, "c", Outcome.SCHEMA), _item(3, "b", BEHIND)]
    effects = _collected(items, _lanes())
    assert [item.identity for item in effects.seen] == [b"0", b"1", b"3"]
    assert [(item.key, attempts) for item, attempts in effects.dead] == [("c", 1)]


def test_parked_events_are_numbered_behind_all_that_waits() -> None:
    """The first of a key opens its lane, once."""
    lanes = _lanes(held=Lane(due=0.0, since=0.0, attempts=4, events=7, error="older"))
    lanes.next_number = 8
    items = [_item(0, "b", FAILED), _item(1, "held", BEHIND), _item(2, "b", BEHIND), _item(3, "a", APPLIED)]
    effects = _collected(items, lanes)
    assert [(item.key, item.number) for item in effects.parked] == [("b", 8), ("held", 9), ("b", 10)]
    assert list(effects.lanes) == ["b"], "a lane that is there keeps its attempts and its error"
    assert (effects.lanes["b"].attempts, effects.lanes["b"].error) == (1, "offset 0")


@pytest.mark.parametrize(
    ("outcome", "attempts"),
    [(FAILED, 1), (Outcome.DATA_REFUSED, 0), (Outcome.PROCESS_KILLED, 4)],
    ids=["ran once", "never ran to its end", "has one last run"],
)
def test_new_lane_knows_the_runs_that_its_head_has_had(outcome: Outcome, attempts: int) -> None:
    effects = _collected([_item(0, "a", outcome)], _lanes())
    assert effects.lanes["a"].attempts == attempts


def test_batch_ends_before_the_first_event_that_did_not_run() -> None:
    items = [
        _item(3, "a", APPLIED),
        _item(5, "b", FAILED),
        _item(6, "b", Outcome.DUPLICATE_ID),
        _item(9, "a", READY),
        _item(10, "c", Outcome.SCHEMA),
        _item(11, "b", BEHIND),
    ]
    effects = _collected(items, _lanes())
    assert [item.record.offset for item in effects.items] == [3, 5, 6]
    assert effects.next_offset == 9
    assert effects.last is not None and effects.last.offset == 6
    assert (effects.dead, [item.identity for item in effects.seen]) == ([], [b"3", b"5"])


def test_batch_that_was_run_to_its_end_stays_as_it_is() -> None:
    effects = _collected([_item(0, "a", APPLIED), _item(1, "a", Outcome.UNHANDLED)], _lanes())
    assert (effects.next_offset, effects.last, len(effects.items)) == (100, None, 2)


def test_lane_is_closed_when_its_last_event_has_left() -> None:
    lanes = _lanes(a=Lane(due=0.0, since=0.0, attempts=2, events=2))
    effects = _retried([_item(0, "a", APPLIED), _item(1, "a", APPLIED)], lanes)
    assert (effects.closed, effects.lanes) == (["a"], {})
    assert [item.record.offset for item in effects.released] == [0, 1]


def test_head_that_fails_again_waits_longer() -> None:
    """The events that ran before it have left the lane."""
    lanes = _lanes(a=Lane(due=0.0, since=1.0, attempts=3, events=9))
    effects = _retried([_item(0, "a", APPLIED), _item(1, "a", FAILED), _item(2, "a", BEHIND)], lanes)
    after = effects.lanes["a"]
    assert [item.record.offset for item in effects.released] == [0]
    assert (after.events, after.attempts, after.since, after.error) == (8, 1, 1.0, "offset 1")
    assert after.due > time.time()


def test_head_is_given_up_at_the_last_attempt() -> None:
    """Its follower is due at once."""
    lanes = _lanes(a=Lane(due=0.0, since=1.0, attempts=5, events=3))
    effects = _retried([_item(0, "a", FAILED), _item(1, "a", BEHIND)], lanes)
    assert [(item.outcome, attempts) for item, attempts in effects.dead] == [(Outcome.GAVE_UP, 5)]
    assert (effects.lanes["a"].events, effects.lanes["a"].attempts) == (2, 0)
    assert effects.lanes["a"].due <= time.time()


def test_lane_that_the_run_did_not_come_to_has_lost_no_attempt() -> None:
    lanes = _lanes(a=Lane(due=0.0, since=0.0, attempts=1, events=1), b=Lane(due=0.0, since=0.0, attempts=3, events=2))
    effects = _retried([_item(0, "a", APPLIED), _item(1, "b", READY), _item(2, "b", READY)], lanes)
    assert effects.closed == ["a"]
    assert (effects.lanes["b"].attempts, effects.lanes["b"].events) == (2, 2)
    assert effects.lanes["b"].due <= time.time()
    assert [item.record.offset for item in effects.items] == [0]


def test_lane_that_was_left_in_its_middle_has_a_fresh_head() -> None:
    """The next run begins there, with no attempt counted."""
    lanes = _lanes(a=Lane(due=0.0, since=0.0, attempts=3, events=3))
    effects = _retried([_item(0, "a", APPLIED), _item(1, "a", READY), _item(2, "a", READY)], lanes)
    assert (effects.lanes["a"].attempts, effects.lanes["a"].events) == (0, 2)
    assert [item.record.offset for item in effects.released] == [0]


def test_lane_that_the_run_did_not_come_to_is_what_it_was() -> None:
    """An operator has let it go on without what is missing, or its handler has failed: nothing of that is forgotten."""
    gap = Lane(due=3.0, since=0.0, attempts=1, events=1, error_type="SequenceGapError", expected=2, is_asked=True)
    failed = Lane(due=3.0, since=0.0, attempts=4, events=1, error_type="KeyError", handler="note", place=7)
    effects = _retried([_item(0, "a", READY), _item(1, "b", READY)], _lanes(a=gap, b=failed))
    assert effects.lanes == {
        "a": msgspec.structs.replace(gap, attempts=0),
        "b": msgspec.structs.replace(failed, attempts=3),
    }


def test_all_that_has_waited_is_given_up_over_several_runs() -> None:
    gap = Lane(due=3.0, since=0.0, attempts=1, events=3, error_type="SequenceGapError", is_asked=True)
    effects = _retried([_item(0, "a", Outcome.GAP), _item(1, "a", Outcome.GAP)], _lanes(a=gap))
    after = effects.lanes["a"]
    assert (after.due, after.is_gap, after.is_asked, after.events) == (3.0, True, True, 1)


def test_events_without_a_place_are_numbered_as_they_come() -> None:
    """However many events of other keys of a subscription in sequence were parked before."""
    lanes = Lanes(lambda handler: Policy(5, 0.5, 60.0), is_in_sequence=True)
    lanes.next_number = 2**19 - 2
    lanes.by_key = {"a": Lane(due=0.0, since=0.0, events=1)}
    effects = _collected([_item(offset, "a", BEHIND) for offset in range(4)], lanes)
    numbers = [item.number for item in effects.parked]
    assert numbers == sorted(set(numbers))


def test_what_a_head_waits_for_is_found_behind_it() -> None:
    """The head had failed when the missing event joined; the first look reads the head alone, the next one both."""
    lanes = Lanes(lambda handler: Policy(5, 0.5, 60.0, gap_seconds=60.0), is_in_sequence=True)
    head, missing = _item(0, "a", Outcome.HELD), _item(1, "a", BEHIND)
    head.place, head.number = 3, number_of(3, 1, is_replay=False)
    missing.place, missing.number = 2, number_of(3, 2, is_replay=False)
    head.failed(Outcome.HELD, SequenceGapError("2 is missing", 2))
    lanes.by_key = {"a": Lane(due=0.0, since=0.0, attempts=2, events=2, place=3, arrival=2)}
    found = _retried([head], lanes)
    assert (found.lanes["a"].expected, found.parked) == (None, [])
    lanes.by_key = found.lanes
    sorted_ = _retried([head, missing], lanes)
    assert ([item.number for item in sorted_.released], sorted_.lanes["a"].events) == ([missing.number], 1)
    assert [item.number for item in sorted_.parked] == [number_of(2, 3, is_replay=False)]


class Kept(BaseModel):
    number: int = 0


class Noted(Event, type="noted", topic="pages", key="page"):
    page: str
    number: int


async def test_states_that_differ_are_written_sorted() -> None:
    """Each has the version after the one that was read."""
    cache, run = await _run({"b": 2, "a": 1, "same": 0}, careful=False)
    cache.entries["b"].version, cache.entries["b"].raw = 6, b'{"number":1}'
    cache.entries["same"].raw = b'{"number":0}'
    assert changed_states({"kept": cache}, run) == {"kept": [("a", 1, b'{"number":1}'), ("b", 7, b'{"number":2}')]}


async def test_careful_run_writes_a_state_as_its_handler_left_it() -> None:
    """What a later handler does to it does not count."""
    cache, run = await _run({"a": 1}, careful=True)
    cache.entries["a"].value.number = object()
    assert changed_states({"kept": cache}, run) == {"kept": [("a", 1, b'{"number":1}')]}


async def _run(numbers: dict[str, int], *, careful: bool) -> tuple[StateCache, Run]:
    subscription = Subscription("notes", service="shop")

    @subscription.on(Noted)
    def note(event: Noted, kept: State[Kept]) -> None:
        kept.number = event.number

    cache = StateCache(subscription.states["kept"], 10)
    items = [_item(offset, page, READY) for offset, page in enumerate(numbers)]
    for item in items:
        assert item.key is not None
        cache.put(item.key, b"", 0)
        item.handler = subscription.handlers["noted"]
        item.event = Noted(page=item.key, number=numbers[item.key])
    run = Run(
        items,
        {"kept": cache},
        emitter=Emitter("notebook", "notes", {}, 1_000),
        careful=careful,
        timeout_seconds=1.0,
        observe=lambda handler, seconds: None,
        failed=lambda item, error: None,
        tracing=Tracing(service="notebook"),
    )
    threads = HandlerThreads("notes", 1)
    try:
        await run.execute(threads, None)
    finally:
        threads.stop()
    return cache, run


def _lanes(**by_key: Lane) -> Lanes:
    lanes = Lanes(lambda handler: Policy(5, 0.5, 60.0))
    lanes.by_key = by_key
    return lanes


def _collected(items: list[Item], lanes: Lanes) -> Effects:
    effects = Effects(Kind.BATCH, items, 100, None)
    settle(effects, lanes)
    return effects


def _retried(items: list[Item], lanes: Lanes) -> Effects:
    effects = Effects(Kind.RETRY, items, 100, None)
    settle(effects, lanes)
    return effects


def _item(offset: int, key: str, outcome: Outcome) -> Item:
    record = StoredRecord(
        topic="pages", partition=0, offset=offset, timestamp=0, key=key.encode(), value=b"{}", headers=()
    )
    envelope = Envelope(id=str(offset), source="/tests", type="noted")
    item = Item(record, outcome, envelope, key=key, identity=str(offset).encode())
    if outcome in (FAILED, Outcome.DATA_REFUSED, Outcome.PROCESS_KILLED):
        item.error = HandlerError(f"offset {offset}", "note")
    return item
