"""A call whose end Postgres refuses fails by itself: no other call waits for it, or is made again."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from headrace import Emit, Event, Headrace, Step
from headrace.effects import steps
from headrace.errors import ConfigurationError
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from tests.support.auditing import assert_promises_hold
from tests.support.platform import execute, fetch, publish, record, running, settings_for, value
from tests.support.waiting import until


class Placed(Event, type="placed", topic="orders", key="order"):
    order: str


class Later(Event, type="later", topic="laters", key="order"):
    order: str


REFUSES_TIMERS = "alter table headrace.timer add constraint no_bad_ones check (name not like 'bad%')"
REFUSES_LETTERS = "alter table headrace.dead_letter add constraint no_letters check (reason <> 'gave_up')"


HAS_NO_MEMORY_FOR_TIMERS = """
create function public.has_no_memory() returns trigger language plpgsql as $$
begin
    if new.name like 'bad%' then raise exception 'no_memory_for_bad_ones' using errcode = '53200'; end if;
    return new;
end $$;
create trigger has_no_memory before insert on headrace.timer for each row execute function public.has_no_memory();
"""


def placed(order: str, id: str | None = None) -> Any:
    return record("orders", "placed", {"order": order}, key=order, id=id or order)


def reminding(settings: Settings, calls: Counter[str], **options: Any) -> Headrace:
    """Return a service whose effect sets a timer with the name of its order."""
    platform = Headrace("shop", settings)
    platform.declare(Later)

    @platform.subscription("reminders").effect(Placed, **options)
    async def remind(event: Placed, emit: Emit) -> None:
        calls[event.order] += 1
        emit(Later(order=event.order), after=3_600, name=event.order)

    return platform


async def _is_done(runtime: Any) -> bool:
    return bool(await value(runtime, "select count(*) = 0 from headrace.effect"))


@pytest.mark.parametrize(
    ("refuses", "why"),
    [(REFUSES_TIMERS, "no_bad_ones"), (HAS_NO_MEMORY_FOR_TIMERS, "no_memory_for_bad_ones")],
    ids=["not allowed", "too large"],
)
async def test_call_whose_timer_is_refused_fails_alone(database_url: str, refuses: str, why: str) -> None:
    calls: Counter[str] = Counter()
    good = [f"good-{number}" for number in range(40)]
    platform = reminding(settings_for(database_url, partitions=1), calls, attempts=3)
    async with running(platform, MemoryLog()) as runtime:
        await execute(database_url, refuses)
        await publish(runtime, *map(placed, [*good[:20], "bad", *good[20:]]))
        await until(lambda: value(runtime, "select count(*) from headrace.dead_letter"), "it is given up on")
        await until(lambda: _is_done(runtime), "and all others are done")
        assert calls == dict.fromkeys(good, 1) | {"bad": 3}
        (letter,) = await fetch(runtime, "select reason, attempts, error from headrace.dead_letter")
        assert (letter["reason"], letter["attempts"]) == ("gave_up", 3)
        assert "what it emits cannot be kept" in letter["error"] and why in letter["error"]
        assert await value(runtime, "select count(*) from headrace.timer") == 40
        await assert_promises_hold(database_url)


async def test_refused_call_goes_on_one_at_a_time_with_its_key(database_url: str) -> None:
    """The next call of its key has begun when it is refused: its next attempt waits for that."""
    order: list[str] = []
    may_end, platform = asyncio.Event(), Headrace("shop", settings_for(database_url, partitions=1))
    platform.declare(Later)

    @platform.subscription("reminders").effect(Placed, attempts=2, first_seconds=0.001)
    async def remind(event: Placed, emit: Emit) -> None:
        number = len(order) // 2
        order.append(f"{number} begins")
        if number == 0:
            emit(Later(order=event.order), after=3_600, name="bad")
        if number == 1:
            await may_end.wait()
        order.append(f"{number} ends")

    async with running(platform, MemoryLog()) as runtime:
        await execute(database_url, REFUSES_TIMERS)
        await publish(runtime, placed("a", "1"), placed("a", "2"))
        failed = "select count(*) from headrace.effect where attempts = 1"
        await until(lambda: value(runtime, failed), "the first is refused")
        may_end.set()
        await until(lambda: _is_done(runtime), "both are done")
        assert order == [f"{number} {what}" for number in range(3) for what in ("begins", "ends")]


async def test_call_whose_dead_letter_is_refused_is_held(database_url: str) -> None:
    calls: Counter[str] = Counter()
    platform = reminding(settings_for(database_url, partitions=1), calls, attempts=1)
    async with running(platform, MemoryLog()) as runtime:
        await execute(database_url, REFUSES_TIMERS)
        await execute(database_url, REFUSES_LETTERS)
        await publish(runtime, placed("bad"), placed("good"))
        held = "select count(*) from headrace.effect where due_at = 'infinity'"
        await until(lambda: value(runtime, held), "it is held")
        await publish(runtime, placed("better"))
        await until(lambda: value(runtime, "select count(*) = 2 from headrace.timer"), "the others are done")
        assert calls == {"bad": 1, "good": 1, "better": 1}
        assert "its dead letter cannot be kept" in await value(runtime, "select error from headrace.effect")


async def test_name_that_is_no_unicode_is_refused_where_it_is_given(database_url: str) -> None:
    refused: list[str] = []
    platform = Headrace("shop", settings_for(database_url, partitions=1))
    platform.declare(Later)

    @platform.subscription("reminders").effect(Placed, attempts=1)
    async def remind(event: Placed, emit: Emit) -> None:
        try:
            emit(Later(order=event.order), after=1, name="scan-\udcff.pdf")
        except ConfigurationError as error:
            refused.append(str(error))

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, placed("1"))
        await until(lambda: refused, "it has heard of it")
        assert refused == [
            "a timer's name has 1 to 200 characters of Unicode, without NUL, and 'scan-\\udcff.pdf' has not."
        ]


async def test_step_whose_answer_is_refused_fails_alone(database_url: str) -> None:
    """The answers of both come at one time; the refused one is remembered by its owner, and nobody is asked again."""
    asked, ended, may_answer = Counter[str](), list[str](), asyncio.Event()

    async def ask(order: str) -> int:
        asked[order] += 1
        await may_answer.wait()
        return 1

    platform = Headrace("shop", settings_for(database_url, partitions=1))

    @platform.subscription("questions").effect(Placed, first_seconds=0.001)
    async def question(event: Placed, step: Step) -> None:
        await step(event.order, ask, event.order)
        ended.append(event.order)

    async with running(platform, MemoryLog()) as runtime:
        await execute(database_url, "alter table headrace.step add constraint no_bad_ones check (name <> 'bad')")
        await publish(runtime, *map(placed, ("good", "bad", "better")))
        await until(lambda: asked.total() == 3, "all of them ask")
        may_answer.set()
        await until(lambda: len(ended) == 3, "all are done")
        assert asked == {"good": 1, "bad": 1, "better": 1}
        assert sorted(ended) == ["bad", "better", "good"]


async def test_answer_that_cannot_be_written_fails_its_call_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason is: the call does not wait for ever, and the next attempt goes on with the answer."""
    asked, ended = Counter[str](), list[str]()

    async def ask(order: str) -> int:
        asked[order] += 1
        return 1

    async def broken(*_: object) -> None:
        raise RuntimeError("a mistake")

    platform = Headrace("shop", settings_for(database_url, partitions=1))

    @platform.subscription("questions").effect(Placed, first_seconds=0.001)
    async def question(event: Placed, step: Step) -> None:
        await step("ask", ask, event.order)
        ended.append(event.order)

    monkeypatch.setattr(steps, "remember", broken)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, placed("1"))
        await until(lambda: ended, "it is done")
        assert asked == {"1": 1}
        assert ended == ["1"]


async def test_step_whose_name_is_no_unicode_asks_nobody(database_url: str) -> None:
    platform = Headrace("shop", settings_for(database_url, partitions=1))

    async def ask() -> None:
        raise AssertionError

    @platform.subscription("questions").effect(Placed, attempts=1)
    async def question(event: Placed, step: Step) -> None:
        await step("scan-\udcff.pdf", ask)

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, placed("1"))
        await until(lambda: value(runtime, "select count(*) from headrace.dead_letter"), "it is given up on")
        error = await value(runtime, "select error from headrace.dead_letter")
        assert "a step's name has 1 to 200 characters of Unicode, without NUL" in error
