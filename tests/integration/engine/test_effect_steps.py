"""A step's answer is remembered for its event: a run that follows asks the outside only for what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends
from pydantic import BaseModel

from headrace import Event, Headrace, State, Step
from headrace.engine.timers import DueTimers
from headrace.errors import StateUnavailableError
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from tests.support.auditing import assert_promises_hold
from tests.support.obstacles import die
from tests.support.platform import execute, publish, record, running, settings_for, value, watched
from tests.support.waiting import until


class Placed(Event, type="placed", topic="orders", key="order"):
    order: str


class Receipt(BaseModel):
    """What a bank answers."""

    number: int
    key: str


class Bank:
    """Remembers who was charged with which key."""

    def __init__(self) -> None:
        self.charged: list[str] = []

    async def charge(self, order: str, *, key: str) -> Receipt:
        self.charged.append(order)
        return Receipt(number=len(self.charged), key=key)


Buy = Callable[[Placed, Step], Awaitable[None]]


def shop(settings: Settings, buy: Buy, **options: Any) -> Headrace:
    platform = Headrace("shop", settings)
    platform.subscription("payments").effect(Placed, **options)(buy)
    return platform


def placed(order: str) -> Any:
    return record("orders", "placed", {"order": order}, key=order, id=order)


async def test_answer_is_remembered_when_a_later_step_fails(database_url: str) -> None:
    bank, receipts, fails = Bank(), list[Receipt](), [3]

    async def post(order: str) -> None:
        fails[0] -= 1
        if fails[0] >= 0:
            raise ConnectionError

    async def buy(event: Placed, step: Step) -> None:
        receipts.append(await step("charge", bank.charge, event.order, key=step.key_of("charge")))
        await step("post", post, event.order)

    async with running(shop(settings_for(database_url), buy), MemoryLog()) as runtime:
        await publish(runtime, placed("1"))
        await until(lambda: len(receipts) == 4, "it ran four times")
        assert bank.charged == ["1"]
        assert receipts == [receipts[0]] * 4
        assert isinstance(receipts[3], Receipt)
        await until(lambda: _is_empty(runtime), "the answers go when it is done")


async def _is_empty(runtime: Any) -> bool:
    rows = "(select count(*) from headrace.effect) + (select count(*) from headrace.step)"
    return bool(await value(runtime, f"select {rows} = 0"))


async def test_owner_that_dies_leaves_the_call_to_the_next(database_url: str) -> None:
    """The next owner calls again with the same key, and takes the answers that the first one had."""
    bank, keys, is_dead, log = Bank(), set[str](), [False], MemoryLog()
    never = asyncio.Event()

    async def post(order: str) -> None:
        if not is_dead[0]:
            await never.wait()

    async def buy(event: Placed, step: Step) -> None:
        keys.add(step.key)
        await step("charge", bank.charge, event.order, key=step.key_of("charge"))
        await step("post", post, event.order)

    platform = shop(settings_for(database_url), buy)
    orders = [f"order-{number}" for number in range(20)]
    async with running(platform, log) as runtime:
        await publish(runtime, *map(placed, orders))
        await until(lambda: _answers(runtime, 20), "each is charged, and waits for the post")
        await die(runtime)
    is_dead[0] = True
    async with running(platform, log) as runtime:
        await until(lambda: _is_empty(runtime), "the next owner has done the rest")
        assert sorted(bank.charged) == sorted(orders), "each once"
        assert len(keys) == 20
        await assert_promises_hold(database_url)


async def _answers(runtime: Any, count: int) -> bool:
    return int(await value(runtime, "select count(*) from headrace.step where name = 'charge'")) == count


async def test_deaths_use_up_the_attempts_of_a_call(database_url: str) -> None:
    begun, log, never = asyncio.Event(), MemoryLog(), asyncio.Event()

    async def buy(event: Placed, step: Step) -> None:
        begun.set()
        await never.wait()

    platform = shop(settings_for(database_url), buy, attempts=2)
    for _ in range(2):
        begun.clear()
        async with running(platform, log) as runtime:
            if _ == 0:
                await publish(runtime, placed("1"))
            await until(begun.is_set, "it runs")
            await die(runtime)
    async with running(platform, log) as runtime:
        await until(lambda: _is_empty(runtime), "it is given up on")
        row = await value(runtime, "select reason || ': ' || error from headrace.dead_letter")
        assert row.startswith("gave_up:") and "the process died each time" in row


async def test_death_counts_for_the_call_that_was_made_alone(database_url: str) -> None:
    """Two calls wait behind it: when it is given up on, the next one has all of its attempts."""
    begun, log, never, keys = asyncio.Event(), MemoryLog(), asyncio.Event(), list[str]()

    async def buy(event: Placed, step: Step) -> None:
        keys.append(step.key)
        begun.set()
        await never.wait()

    platform = shop(settings_for(database_url, partitions=1), buy, attempts=2)
    for turn in range(2):
        begun.clear()
        async with running(platform, log) as runtime:
            if turn == 0:
                await publish(
                    runtime, *(record("orders", "placed", {"order": "1"}, key="1", id=each) for each in "abc")
                )
                await until(lambda: value(runtime, "select count(*) = 3 from headrace.effect"), "all three are there")
            await until(begun.is_set, "it runs")
            await die(runtime)
    async with running(platform, log) as runtime:
        await until(lambda: len(set(keys)) == 2, "the second is called")
        letters = "select count(*) = 1 from headrace.dead_letter"
        await until(lambda: value(runtime, letters), "the first alone is given up on")
        assert await value(runtime, "select array_agg(attempts) from headrace.effect") == [0, 0]


async def test_death_counts_though_the_next_owner_claims_twice(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres is away when it has claimed for the first time: when it claims again, the former owner is itself."""
    begun, log, never, load = asyncio.Event(), MemoryLog(), asyncio.Event(), DueTimers.load

    async def buy(event: Placed, step: Step) -> None:
        begun.set()
        await never.wait()

    async def load_later(timers: DueTimers) -> None:
        monkeypatch.setattr(DueTimers, "load", load)
        raise StateUnavailableError("away")

    platform = shop(settings_for(database_url, partitions=1), buy, attempts=3)
    async with running(platform, log) as runtime:
        await publish(runtime, placed("1"))
        await until(begun.is_set, "it runs")
        await die(runtime)
    monkeypatch.setattr(DueTimers, "load", load_later)
    async with running(platform, log) as runtime:
        assert await value(runtime, "select attempts from headrace.effect") == 1
        await die(runtime)


async def test_death_while_paused_counts_for_no_call(database_url: str) -> None:
    begun, log, never = asyncio.Event(), MemoryLog(), asyncio.Event()

    async def buy(event: Placed, step: Step) -> None:
        begun.set()
        await never.wait()

    platform = shop(settings_for(database_url, partitions=1), buy, attempts=3)
    async with running(platform, log) as runtime:
        await publish(runtime, placed("1"))
        await until(begun.is_set, "it runs")
        await die(runtime)
    await execute(database_url, PAUSE.format("true"))
    for _ in range(3):
        async with watched(platform, log) as runtime:
            await until(lambda: _has_taken_over(runtime), "the call is taken over")
            assert await value(runtime, "select attempts from headrace.effect") == 0
            await die(runtime)


def _has_taken_over(runtime: Any) -> bool:
    tenure = runtime.consumers["payments"].workers[0].tenure
    return tenure is not None and tenure.memory.calls.total == 1


async def test_polite_stop_waits_for_calls_and_counts_nothing(database_url: str) -> None:
    began, may_end, log, calls = asyncio.Event(), asyncio.Event(), MemoryLog(), [0]

    async def buy(event: Placed, step: Step) -> None:
        calls[0] += 1
        began.set()
        await may_end.wait()

    platform = shop(settings_for(database_url), buy, attempts=1)
    async with running(platform, log) as runtime:
        await publish(runtime, placed("1"))
        await until(began.is_set, "it runs")
        asyncio.get_running_loop().call_soon(may_end.set)
    async with running(platform, log) as runtime:
        await until(lambda: _is_empty(runtime), "nothing is left")
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0
    assert calls == [1]


async def test_replayed_letter_takes_the_answers_it_had(database_url: str) -> None:
    bank, is_mended = Bank(), [False]

    async def buy(event: Placed, step: Step) -> None:
        await step("charge", bank.charge, event.order, key=step.key_of("charge"))
        if not is_mended[0]:
            raise KeyError

    async with running(shop(settings_for(database_url), buy, attempts=1), MemoryLog()) as runtime:
        await publish(runtime, placed("1"))
        await until(lambda: value(runtime, "select count(*) from headrace.dead_letter"), "it is given up on")
        is_mended[0] = True
        await execute(database_url, "update headrace.dead_letter set decision = 'replay'")
        taken_up = "select count(*) from headrace.dead_letter where settled_at is not null"
        await until(lambda: value(runtime, taken_up), "it is taken up")
        await until(lambda: _is_empty(runtime), "it is done")
        assert bank.charged == ["1"]


async def test_wrong_steps_say_what_to_write(database_url: str) -> None:
    errors: dict[str, str] = {}

    async def respond() -> Any:
        return object()

    async def buy(event: Placed, step: Step) -> None:
        try:
            if event.order == "twice":
                await step("a", Bank().charge, "1", key="k")
                await step("a", Bank().charge, "1", key="k")
            else:
                await step("a", respond)
        except Exception as error:
            errors[event.order] = str(error)

    async with running(shop(settings_for(database_url), buy), MemoryLog()) as runtime:
        await publish(runtime, placed("twice"), placed("no json"))
        await until(lambda: len(errors) == 2, "both have run")
    assert "is there twice in one run; give each call a name" in errors["twice"]
    assert "the answer cannot be kept as JSON" in errors["no json"]


async def test_outage_of_the_outside_uses_up_no_attempt(database_url: str) -> None:
    """Many keys fail: single calls probe until it answers again, and everything is done in the end."""
    is_up, calls = [False], [0]

    async def buy(event: Placed, step: Step) -> None:
        calls[0] += 1
        if not is_up[0]:
            raise ConnectionError("no route to host")

    settings = settings_for(database_url, outage_keys=5)
    async with running(shop(settings, buy, attempts=2, concurrency=10), MemoryLog()) as runtime:
        await publish(runtime, *(placed(f"order-{number}") for number in range(200)))
        limiters = runtime.consumers["payments"]._context.limiters
        await until(lambda: any(each.breaker.outage for each in limiters._known.values()), "an outage is seen")
        seen = calls[0]
        assert seen < 40, "not every key has failed"
        told = "select count(*) = 1 from headrace.outage where handler = 'buy' and error like '%no route to host'"
        await until(lambda: value(runtime, told), "every process tells of it")
        is_up[0] = True
        await until(lambda: _is_empty(runtime), "all are done", 60)
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0
        await until(lambda: value(runtime, "select count(*) = 0 from headrace.outage"), "and of its end")


async def test_pause_stops_calls_and_resuming_goes_on(database_url: str) -> None:
    calls, first_may_end = list[str](), asyncio.Event()

    async def buy(event: Placed, step: Step) -> None:
        calls.append(event.order)
        await first_may_end.wait()

    platform = shop(settings_for(database_url, partitions=1), buy, concurrency=1)
    async with watched(platform, MemoryLog()) as runtime:
        await publish(runtime, placed("1"), placed("2"))
        await until(lambda: calls == ["1"], "the first is called")
        await execute(database_url, PAUSE.format("true"))
        tenure = runtime.consumers["payments"].workers[0].tenure
        assert tenure is not None
        await until(lambda: tenure.outside.runner.is_paused, "the pause is seen")
        first_may_end.set()
        await until(lambda: value(runtime, "select count(*) = 1 from headrace.effect"), "the first is done")
        assert calls == ["1"]
        await execute(database_url, PAUSE.format("false"))
        await until(lambda: _is_empty(runtime), "both are done")
        assert calls == ["1", "2"]


PAUSE = """
insert into headrace.subscription (subscription, paused) values ('shop.payments', {0})
on conflict (subscription) do update set paused = {0}
"""


async def test_override_that_asks_too_much_fails_its_event_alone(database_url: str) -> None:
    """It is found when the effect is called: the call fails as any other, and no place is lost for those behind it."""

    def rates() -> int:
        return 1

    def greedy(state: State[Receipt]) -> int:
        return state.number

    platform = Headrace("shop", settings_for(database_url))
    paid: list[str] = []

    @platform.subscription("payments").effect(Placed, attempts=1, concurrency=1)
    async def pay(event: Placed, rate: Annotated[int, Depends(rates)]) -> None:
        paid.append(event.order)

    overrides: dict[Any, Any] = {}
    platform.registry.follow(overrides)
    async with running(platform, MemoryLog()) as runtime:
        overrides[rates] = greedy
        await publish(runtime, placed("1"))
        letters = "select count(*) from headrace.dead_letter"
        await until(lambda: value(runtime, letters), "its event is given up on")
        overrides.clear()
        await publish(runtime, placed("2"))
        await until(lambda: paid == ["2"], "the next one is called")
