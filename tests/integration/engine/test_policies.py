"""What is done about a failing event is what its handler's policy says, or the handler itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast

import pytest

from headrace import DeadLetter, Emit, Event, Headrace, Retry, Skip, State
from headrace.engine import breaker
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from tests.support.obstacles import Gate
from tests.support.platform import (
    Notes,
    client,
    fetch,
    has_pages,
    noted,
    pages,
    publish,
    record,
    running,
    sample,
    settings_for,
    spread,
    until_settled,
    value,
    watched,
)
from tests.support.waiting import until

Answer = Callable[[int], object]
"""What a handler answers to a number: it raises, or returns it."""


class MutedRetry(Retry):
    """A team's own verdict, which says nothing to its base."""

    def __init__(self) -> None: ...


def notebook(database_url: str, topic: str, answer: Answer, **options: Any) -> Headrace:
    """A service that notes a number, emits it, and then answers; the options are its policy."""
    platform = Headrace("notebook", settings_for(database_url, partitions=1, retry_attempts=1))

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    class Told(Event, type="told", topic=f"{topic}-told", key="page"):
        page: str

    platform.declare(Told)

    @platform.subscription("notes").on(Noted, **options)
    def note(event: Noted, kept: State[Notes], emit: Emit) -> Any:
        kept.numbers.append(event.number)
        emit(Told(page=event.page))
        return answer(event.number)

    return platform


def fails(error: BaseException, *numbers: int) -> Answer:
    """Raise the error for the numbers."""

    def answer(number: int) -> None:
        if number in numbers:
            raise error

    return answer


async def test_permanent_error_is_a_dead_letter_at_once(database_url: str, topic_name: str) -> None:
    """Its key goes on, and its identity is known."""
    platform = notebook(database_url, topic_name, fails(KeyError("x"), 1), attempts=9, permanent=LookupError)
    one = noted(topic_name, "a", 1, id="one")
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, one, noted(topic_name, "a", 2), noted(topic_name, "b", 3), one)
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [2], "b": [3]}
        (letter,) = await fetch(runtime, "select reason, attempts, error_type, handler from headrace.dead_letter")
        assert tuple(letter) == ("permanent", 1, "KeyError", "note")
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 1
        assert sample(runtime, "handler_errors_total", error="KeyError") == 1


async def test_held_key_waits_for_an_operator(database_url: str, topic_name: str) -> None:
    """Also with the next owner, which does not try it by itself; other keys flow on."""
    numbers, runs = {1}, []

    def answer(number: int) -> None:
        runs.append(number)
        if number in numbers:
            raise KeyError("x")

    log = MemoryLog()
    platform = notebook(database_url, topic_name, answer, attempts=2, at_end="hold")
    async with running(platform, log) as runtime:
        await publish(runtime, *(noted(topic_name, "a", number) for number in (1, 2)), noted(topic_name, "b", 5))
        await until(lambda: _is_held(runtime), "the key is held")
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0
    runs.clear()
    async with watched(platform, log) as runtime, client(platform) as http:
        await publish(runtime, *(noted(topic_name, page, 7) for page in "ab"))
        await until(lambda: has_pages(runtime, {"b": [5, 7]}), "the other key flows on")
        (lane,) = (await http.get("/subscriptions/notes/lanes", params={"held": "true"})).json()["lanes"]
        assert (lane["key"], lane["next_attempt_at"], lane["error_type"]) == ("a", None, "KeyError")
        await until(lambda: sample(runtime, "lane_held_keys") == 1, "the metric tells it")
        assert 1 not in runs
        retry = "/subscriptions/notes/lanes/retry"
        assert (await http.post(retry, params={"handler": "other"})).json()["lanes"] == 0
        numbers.clear()
        assert (await http.post(retry, params={"error_type": "KeyError", "held": "true"})).json()["lanes"] == 1
        await until(lambda: has_pages(runtime, {"a": [1, 2, 7]}), "the held events are applied in order")


async def test_replay_leaves_a_held_key_held(database_url: str, topic_name: str) -> None:
    """The replayed event waits with the others until an operator lets the key go on."""
    errors: dict[int, Exception] = {1: DeadLetter("as asked"), 2: KeyError("x")}
    runs: list[int] = []

    def answer(number: int) -> None:
        runs.append(number)
        if number in errors:
            raise errors[number]

    platform = notebook(database_url, topic_name, answer, attempts=1, at_end="hold")
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "a", 2))
        await until(lambda: _is_held(runtime), "the key is held")
        runs.clear()
        del errors[1]
        (letter,) = await fetch(runtime, "select id from headrace.dead_letter")
        assert (await http.post(f"/dead-letters/{letter['id']}/replay")).status_code == 200
        settled = "select settled_at is not null from headrace.dead_letter"
        await until(lambda: value(runtime, settled), "the replay has joined its key")
        await publish(runtime, noted(topic_name, "b", 5))
        await until(lambda: has_pages(runtime, {"b": [5]}), "the other key flows on")
        assert runs == [5]
        errors.clear()
        assert (await http.post("/subscriptions/notes/lanes/retry", params={"held": "true"})).json()["lanes"] == 1
        await until(lambda: has_pages(runtime, {"a": [2, 1]}), "the replayed event is applied behind it")


@pytest.mark.parametrize("is_returned", [True, False], ids=["returned", "raised"])
async def test_handler_says_what_becomes_of_its_event(database_url: str, topic_name: str, is_returned: bool) -> None:
    """What it did before it said so is undone, and what is skipped or given up holds its key back no longer."""
    answers: dict[int, Exception] = {1: Skip("old news"), 2: DeadLetter("no such page")}

    def answer(number: int) -> object:
        if number not in answers or is_returned:
            return answers.get(number)
        raise answers[number]

    one = noted(topic_name, "a", 1, id="one")
    async with running(notebook(database_url, topic_name, answer), MemoryLog()) as runtime:
        await publish(runtime, one, *(noted(topic_name, "a", number) for number in (2, 3)), one)
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [3]}
        (letter,) = await fetch(runtime, "select reason, attempts, error from headrace.dead_letter")
        assert tuple(letter) == ("asked", 1, "note: no such page")
        assert sample(runtime, "events_skipped_total", reason="skipped_by_handler") == 1
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 1
        assert sample(runtime, "emits_committed_total") == 1
        assert sample(runtime, "handler_errors_total") == 0


async def test_handler_asks_for_a_retry_at_its_own_time(database_url: str, topic_name: str) -> None:
    """The attempt counts."""
    answers: list[Exception] = [Retry(3_600)]

    def answer(number: int) -> None:
        if answers:
            raise answers[0]

    platform = notebook(database_url, topic_name, answer, attempts=1_000)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: value(runtime, "select attempts = 1 from headrace.lane"), "the event is parked")
        assert await value(runtime, "select due_at > now() + interval '59 minutes' from headrace.lane")
        answers[0] = Retry(0.01, "not yet")
        await http.post("/subscriptions/notes/lanes/retry")
        await until(lambda: value(runtime, "select attempts > 2 from headrace.lane"), "it is tried again and again")
        answers.clear()
        await until(lambda: has_pages(runtime, {"a": [1]}), "it is applied")


async def test_declared_outage_uses_up_no_attempt(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PROBE_SECONDS", 0.02)
    monkeypatch.setattr(breaker, "LONGEST_PROBE_SECONDS", 0.05)
    remaining = 5

    def answer(number: int) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining > 0:
            raise ConnectionRefusedError("the bank is away")

    platform = notebook(database_url, topic_name, answer, attempts=2, max_seconds=0.05, outage=ConnectionError)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a"], 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0


async def test_replay_in_an_outage_is_its_next_probe(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is there that could be tried: the only event that met it was given up on."""
    monkeypatch.setattr(breaker, "FIRST_PROBE_SECONDS", 0.02)
    answers: list[Exception] = [ConnectionResetError(), ConnectionResetError(), DeadLetter("no such account")]

    def answer(number: int) -> None:
        if answers:
            raise answers.pop(0)

    platform = notebook(database_url, topic_name, answer, outage=ConnectionError)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: value(runtime, "select count(*) = 1 from headrace.dead_letter"), "it is given up")
        (letter,) = (await http.get("/dead-letters")).json()["dead_letters"]
        await http.post(f"/dead-letters/{letter['id']}/replay")
        await until(lambda: has_pages(runtime, {"a": [1]}), "it is applied")
        await until(lambda: sample(runtime, "handler_outage", handler="note") == 0, "the outage is over")


async def test_outage_of_a_transient_error_uses_up_no_attempt(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly all keys fail: the breaker knows better than the policy what that means."""
    monkeypatch.setattr(breaker, "FIRST_PROBE_SECONDS", 0.02)
    monkeypatch.setattr(breaker, "LONGEST_PROBE_SECONDS", 0.05)
    names, calls = [f"page-{number}" for number in range(30)], 0

    def answer(number: int) -> None:
        nonlocal calls
        calls += 1
        if calls <= 70:
            raise ConnectionRefusedError("the bank is away")

    platform = notebook(database_url, topic_name, answer, attempts=1, transient=ConnectionError)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, names, 1))
        await until_settled(runtime, "notes")
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0
        assert await has_pages(runtime, {name: [1] for name in names})


@pytest.mark.parametrize("verdict", [Retry(cast("float", Decimal("0.01"))), MutedRetry()], ids=["decimal", "subclass"])
async def test_any_retry_is_one(database_url: str, topic_name: str, verdict: Retry) -> None:
    """A number that Postgres returned is a Decimal, and a class of a team's own may forget its base's constructor."""
    platform = notebook(database_url, topic_name, fails(verdict, 1), attempts=3, first_seconds=0.01)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a"], 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [2]}
        assert await value(runtime, "select attempts from headrace.dead_letter") == 3


async def test_each_handler_has_its_own_time_limit(database_url: str, topic_name: str, gate: Gate) -> None:
    """An asynchronous one is cancelled at it, a synchronous one is abandoned."""
    platform = Headrace("notebook", settings_for(database_url, partitions=1, retry_attempts=1))

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str

    class Torn(Event, type="torn", topic=topic_name, key="page"):
        page: str
        number: int

    notes = platform.subscription("notes", timeout_seconds=0.2)

    @notes.on(Noted)
    async def note(event: Noted) -> None:
        await asyncio.Event().wait()

    @notes.on(Torn)
    def tear(event: Torn) -> None:
        gate(event)

    async with watched(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: _errors(runtime, {"TimeoutError"}), "the asynchronous one was cancelled")
        await publish(runtime, record(topic_name, "torn", {"page": "held", "number": 1}, key="held"))
        await until(lambda: _errors(runtime, {"TimeoutError", None}), "the synchronous one was abandoned")


async def _is_held(runtime: Runtime) -> bool:
    return bool(await value(runtime, "select due_at = 'infinity' and attempts = 0 from headrace.lane"))


async def _errors(runtime: Runtime, expected: set[str | None]) -> bool:
    rows = await fetch(runtime, "select error_type from headrace.dead_letter")
    return {row["error_type"] for row in rows} == expected
