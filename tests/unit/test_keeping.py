"""What is said of a state's class: how long it is kept, and what brings old JSON up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from headrace import Event, Headrace, State, keep, upcast
from headrace.errors import ConfigurationError
from headrace.state.cache import StateCache
from headrace.state.codec import StateType
from headrace.testing import Handlers


class Opened(Event, type="opened", topic="sessions", key="user"):
    user: str
    page: str = "/"


@keep(ttl=timedelta(minutes=30))
class Session(BaseModel):
    pages: list[str] = []


@keep(version=3)
class Wallet(BaseModel):
    cents: int = 0
    currency: str = "EUR"


@upcast(Wallet, version=1)
def in_cents(data: dict[str, Any]) -> dict[str, Any]:
    return {"cents": round(data["balance"] * 100)}


@upcast(Wallet, version=2)
def with_currency(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"currency": "EUR"}


def browsing() -> Headrace:
    events = Headrace("shop")

    @events.subscription("sessions").on(Opened)
    def note(event: Opened, session: State[Session]) -> None:
        session.pages.append(event.page)

    return events


def test_state_expires_after_its_last_change() -> None:
    with Handlers(browsing()) as handlers:
        handlers.when(Opened(user="ada", page="/a"))
        handlers.move(minutes=29)
        handlers.when(Opened(user="ada", page="/b"))
        handlers.move(minutes=29)
        assert handlers.state(Session, "ada") == Session(pages=["/a", "/b"])
        handlers.move(minutes=1)
        assert handlers.states(Session) == {}
        assert handlers.when(Opened(user="ada", page="/c")).state(Session) == Session(pages=["/c"])


def test_given_state_expires_as_well() -> None:
    with Handlers(browsing()) as handlers:
        handlers.given_state("ada", Session(pages=["/a"]))
        handlers.move(minutes=31)
        assert handlers.state(Session, "ada") == Session()


def test_old_json_passes_every_upcaster_behind_its_version() -> None:
    state = StateType(Wallet)
    assert state.load(b'{"balance": 1.5}', 1)[0] == Wallet(cents=150)
    assert state.load(b'{"cents": 7}', 2)[0] == Wallet(cents=7)
    assert state.load(b'{"cents": 7, "currency": "SEK"}', 3) == (
        Wallet(cents=7, currency="SEK"),
        b'{"cents":7,"currency":"SEK"}',
    )


def test_what_was_brought_up_is_written_by_the_next_batch() -> None:
    cache = StateCache(StateType(Wallet), 10)
    cache.put("ada", b'{"balance": 1.5}', 4, 1)
    entry = cache.entries["ada"]
    assert (entry.version, entry.raw) == (4, b""), "so that it differs from what the class writes"


@pytest.mark.parametrize(
    ("data", "version", "reason"),
    [
        (b'{"cents": 1}', 4, "it was written by version 4 of Wallet, and this code has version 3; update the code"),
        (b'{"total": 1}', 1, "the upcaster of version 1 of Wallet raised KeyError: 'balance'"),
    ],
)
def test_json_that_cannot_be_brought_up_makes_its_key_unreadable(data: bytes, version: int, reason: str) -> None:
    cache = StateCache(StateType(Wallet), 10)
    cache.put("ada", data, 1, version)
    assert reason in str(cache.unreadable["ada"])


def test_cache_forgets_a_state_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("headrace.state.cache.time.monotonic", lambda: now)
    cache = StateCache(StateType(Session), 10)
    cache.put("ada", b'{"pages": []}', 1, 1, ends_at=160.0)
    cache.put("bob", b"", 0)
    cache.wrote(["bob"], at=100.0)
    now = 161.0
    assert cache.missing(["ada", "bob"]) == ["ada"]
    now = 100.0 + 30 * 60 + 1
    assert cache.missing(["ada", "bob"]) == ["ada", "bob"]


def test_subclass_says_for_itself_how_it_is_kept() -> None:
    class Child(Session):
        pass

    assert StateType(Session).keeping.ttl == timedelta(minutes=30)
    assert StateType(Child).keeping.ttl is None


@pytest.mark.parametrize("ttl", [0, -1, float("inf"), 1e15, timedelta.max, "1h", True])
def test_wrong_time_to_live_is_refused(ttl: Any) -> None:
    with pytest.raises(ConfigurationError, match="ttl is a number of seconds above 0, or a timedelta"):
        keep(ttl=ttl)


def test_wrong_versions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="version is a number from 1 on"):
        keep(version=0)
    with pytest.raises(ConfigurationError, match="Wallet has version 3, so the versions to bring up are 1 to 2"):
        upcast(Wallet, version=3)
    with pytest.raises(ConfigurationError, match="is there twice; keep one"):
        upcast(Wallet, version=1)
    with pytest.raises(ConfigurationError, match=r"it is not an event type, nor a state with @keep\(version=2\)"):
        upcast(Session, version=1)
