"""The owner's memory of states keeps to its limit, undoes what a batch did, and says what it could not read."""

from __future__ import annotations

from threading import Thread

import pytest
from pydantic import BaseModel

from headrace.state.cache import StateCache, StoredState
from headrace.state.codec import StateType


class Wallet(BaseModel):
    balance: int = 0


@pytest.fixture
def cache() -> StateCache:
    return StateCache(StateType(Wallet), 3)


def test_key_that_postgres_does_not_know_starts_new(cache: StateCache) -> None:
    assert cache.missing(["b", "a", "b"]) == ["a", "b"]
    cache.put("a", b"", 0)
    cache.put("b", b'{"balance": 7}', 4)
    assert cache.missing(["a", "b"]) == []
    assert (cache.entries["a"].value, cache.entries["a"].version) == (Wallet(), 0)
    assert (cache.entries["b"].value, cache.entries["b"].version) == (Wallet(balance=7), 4)


def test_loaded_state_that_nobody_changes_is_not_written(cache: StateCache) -> None:
    """Postgres returns its own text of the JSON, with spaces: what counts is what the state would be written as."""
    cache.put("a", b'{"balance": 7}', 4)
    entry = cache.entries["a"]
    assert cache.state.encode(entry.value) == entry.raw
    entry.value.balance = 8
    assert cache.state.encode(entry.value) != entry.raw


def test_rows_are_decoded_in_any_thread(cache: StateCache) -> None:
    rows = [StoredState("a", b'{"balance": 7}', 4), StoredState("b", b"", 0), StoredState("c", b"[]", 1)]
    thread = Thread(target=cache.fill, args=(rows,))
    thread.start()
    thread.join()
    assert cache.missing("abc") == ["c"]
    assert cache.unreadable.keys() == {"c"}
    assert cache.entries["a"].value == Wallet(balance=7)


def test_forgotten_key_is_read_again(cache: StateCache) -> None:
    cache.put("a", b'{"balance": 7}', 4)
    cache.entries["a"].value.balance = 8
    cache.forget(["a", "never seen"])
    assert cache.missing(["a"]) == ["a"]


def test_keys_of_the_last_batch_stay_when_others_leave(cache: StateCache) -> None:
    for key in "abcde":
        cache.put(key, b'{"balance": 7}', 4)
    cache.trim(["a", "b"])
    assert list(cache.entries) == ["e", "a", "b"]


def test_state_that_does_not_fit_its_class_is_named(cache: StateCache) -> None:
    """Until it is read again."""
    cache.put("a", b'{"balance": "many"}', 4)
    assert "a" not in cache.entries
    assert "balance" in str(cache.unreadable["a"])
    cache.put("a", b'{"balance": 1}', 5)
    assert cache.unreadable == {}
    assert cache.entries["a"].value == Wallet(balance=1)
