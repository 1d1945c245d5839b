"""What the owner keeps in memory stays what Postgres holds, batch by batch."""

from __future__ import annotations

import time

import pytest
from pydantic import BaseModel

from headrace.engine.effects import Effects
from headrace.engine.lanes import Lane
from headrace.engine.memory import PartitionMemory
from headrace.handlers.policy import Policy
from headrace.item import Item, Outcome
from headrace.ledger.rows import Kind
from headrace.ledger.window import DedupeWindow
from headrace.log.ports import StoredRecord
from headrace.settings import EngineSettings
from headrace.state.codec import StateType


class Kept(BaseModel):
    number: int = 0


@pytest.fixture
def memory() -> PartitionMemory:
    settings = EngineSettings(dedupe_window_ids=4, state_cache_keys=3)
    made = PartitionMemory(settings, {"kept": StateType(Kept)}, lambda handler: Policy(3, 1.0, 2.0))
    made.windows["pages"] = DedupeWindow(4)
    return made


def test_committed_states_are_what_the_next_batch_compares_with(memory: PartitionMemory) -> None:
    cache = memory.caches["kept"]
    cache.put("a", b'{"number":1}', 5)
    cache.entries["a"].value.number = 2
    memory.follow("pages", Effects(Kind.BATCH, [], 1, None, states={"kept": [("a", 6, b'{"number":2}')]}))
    assert (cache.entries["a"].version, cache.entries["a"].raw) == (6, b'{"number":2}')
    assert cache.missing(["a", "b"]) == ["b"]


def test_states_beyond_the_limit_are_forgotten(memory: PartitionMemory) -> None:
    """The one that was unused for longest is forgotten first."""
    cache = memory.caches["kept"]
    for key in "abcde":
        cache.put(key, b"", 0)
    memory.follow("pages", Effects(Kind.BATCH, [], 1, None, states={"kept": [("a", 1, b"{}"), ("c", 1, b"{}")]}))
    assert set(cache.entries) == {"e", "a", "c"}


def test_key_whose_row_does_not_fit_is_read_again(memory: PartitionMemory) -> None:
    """Each time, until its row fits its class."""
    cache = memory.caches["kept"]
    cache.put("a", b'{"number":"one"}', 3)
    assert (cache.missing(["a"]), set(cache.unreadable)) == (["a"], {"a"})
    cache.put("a", b'{"number":1}', 4)
    assert (cache.missing(["a"]), cache.unreadable) == ([], {})


def test_forgotten_keys_are_read_again(memory: PartitionMemory) -> None:
    """What a batch did to them in memory is gone."""
    cache = memory.caches["kept"]
    cache.put("a", b'{"number":1}', 1)
    cache.put("b", b'{"number":"two"}', 1)
    cache.entries["a"].value.number = 99
    memory.forget({"a", "b", "never seen"})
    assert cache.missing(["a", "b"]) == ["a", "b"]
    assert (cache.entries, cache.unreadable) == ({}, {})


def test_key_that_another_owner_may_hold_is_read_again(memory: PartitionMemory) -> None:
    """It stays cached no longer than its batch; the keys beside it do."""
    cache = memory.caches["kept"]
    for key in "ab":
        cache.put(key, b'{"number":1}', 1)
    states = {"kept": [("a", 2, b'{"number":2}'), ("b", 2, b'{"number":2}')]}
    memory.follow("pages", Effects(Kind.BATCH, [], 1, None, states=states, strays={"a"}))
    assert cache.missing(["a", "b"]) == ["a"]


def test_ids_enter_the_window_of_their_topic(memory: PartitionMemory) -> None:
    """Whole batches leave it."""
    memory.windows["others"] = DedupeWindow(4)
    for batch in ([b"1", b"2"], [b"3"], [b"4", b"5", b"6"]):
        seen = [_item(int(identity), identity) for identity in batch]
        memory.follow("pages", Effects(Kind.BATCH, [], 1, None, seen=seen))
    assert memory.windows["pages"].marks == {b"3": 3, b"4": 4, b"5": 5, b"6": 6}
    assert len(memory.windows["others"]) == 0


def test_lanes_follow_what_joined_was_run_and_left(memory: PartitionMemory) -> None:
    now = time.time()
    parked = [_item(number) for number in (1, 2, 3)]
    memory.follow("pages", Effects(Kind.BATCH, parked, 3, None, parked=parked, lanes={"a": Lane(due=now, since=now)}))
    assert (memory.lanes.by_key["a"].events, memory.lanes.next_number) == (3, 4)

    after = Lane(due=now + 5, since=now, attempts=2, events=1)
    memory.follow("pages", Effects(Kind.RETRY, parked, 3, None, lanes={"a": after}, released=parked[:2]))
    assert (memory.lanes.by_key["a"].events, memory.lanes.next_number) == (1, 4)
    assert memory.lanes.take_due(now, 10) == []

    memory.follow("pages", Effects(Kind.RETRY, parked[2:], 3, None, closed=["a"], released=parked[2:]))
    assert memory.lanes.by_key == {}
    assert memory.lanes.seconds_to_next(now) is None


def _item(number: int, identity: bytes = b"") -> Item:
    record = StoredRecord(topic="pages", partition=0, offset=number, timestamp=0, key=b"a", value=b"{}", headers=())
    return Item(record, Outcome.HANDLER_ERROR, key="a", number=number, identity=identity, mark=number)
