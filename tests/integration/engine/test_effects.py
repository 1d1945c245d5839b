"""Effects call the outside behind the commit: in order per key, many keys at once, at least once, with one key."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace import Event, Headrace, Step
from headrace.effects.listing import Filter, retry
from headrace.errors import ConfigurationError
from headrace.handlers.verdicts import DeadLetter, Skip
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.auditing import assert_promises_hold
from tests.support.obstacles import die
from tests.support.platform import execute, fetch, publish, record, running, sample, settings_for, value, watched
from tests.support.postgres_proxy import PostgresProxy
from tests.support.waiting import until


class Confirmed(Event, type="confirmed", topic="confirmed", key="customer"):
    customer: str
    number: int = 0


class Sent(Event, type="sent", topic="sent", key="customer"):
    customer: str
    number: int


Send = Callable[[Confirmed, Step], Awaitable[Any]]


def mailer(settings: Settings, send: Send, **options: Any) -> Headrace:
    """Return a service whose effect is `send`; it returns an event for each mail that is out."""
    platform = Headrace("shop", settings)
    platform.declare(Sent)

    @platform.subscription("mails").effect(Confirmed, **options)
    async def mail(event: Confirmed, step: Step) -> Sent:
        await send(event, step)
        return Sent(customer=event.customer, number=event.number)

    return platform


def confirmed(customer: str, number: int = 0) -> NewRecord:
    data = {"customer": customer, "number": number}
    return record("confirmed", "confirmed", data, key=customer, id=f"{customer}-{number}")


async def waiting(runtime: Runtime) -> int:
    return int(await value(runtime, "select count(*) from headrace.effect"))


async def until_done(runtime: Runtime) -> None:
    """Return when every published event has had its effect."""

    async def is_done() -> bool:
        tenures = [each.tenure for each in runtime.consumers["mails"].workers.values()]
        held = [holding for tenure in tenures if tenure is not None for holding in tenure.holdings.values()]
        assert runtime.log is not None
        bounds = await runtime.log.bounds([each.claim.partition for each in held])
        is_applied = bool(held) and all(each.claim.next_offset == bounds[each.claim.partition].end for each in held)
        return is_applied and await waiting(runtime) == 0 and all(each.relay.pending == 0 for each in held)

    await until(is_done, "every effect is done")


async def test_calls_are_in_order_per_key_and_many_keys_at_once(database_url: str) -> None:
    calls: defaultdict[str, list[int]] = defaultdict(list)
    at_once, running_keys, all_run = [0], Counter[str](), asyncio.Event()

    async def send(event: Confirmed, step: Step) -> None:
        running_keys[event.customer] += 1
        assert running_keys[event.customer] == 1, "one call of a key at a time"
        at_once[0] = max(at_once[0], sum(running_keys.values()))
        if sum(running_keys.values()) == 50:
            all_run.set()
        await all_run.wait()
        calls[event.customer].append(event.number)
        running_keys[event.customer] -= 1

    async with running(mailer(settings_for(database_url), send), MemoryLog()) as runtime:
        await publish(runtime, *(confirmed(f"c{n % 50}", n // 50) for n in range(500)))
        await until_done(runtime)
        assert calls == {f"c{n}": list(range(10)) for n in range(50)}
        assert at_once == [50]
        assert sample(runtime, "effects_ended_total", subscription="mails", outcome="done") == 500
        await assert_promises_hold(database_url)


async def test_concurrency_bounds_the_calls_of_all_partitions(database_url: str) -> None:
    under_way, most = [0], [0]

    async def send(event: Confirmed, step: Step) -> None:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        for _ in range(5):
            await asyncio.sleep(0)
        under_way[0] -= 1

    async with running(mailer(settings_for(database_url), send, concurrency=7), MemoryLog()) as runtime:
        await publish(runtime, *(confirmed(f"c{n}") for n in range(200)))
        await until_done(runtime)
        assert most == [7]


async def test_nothing_is_called_before_the_commit(database_url: str) -> None:
    """Another session holds the claim's row: the batch cannot commit, and nobody is called until it can."""
    called: list[str] = []

    async def send(event: Confirmed, step: Step) -> None:
        called.append(event.customer)
        assert await value(runtime, "select count(*) from headrace.effect where key = $1", b"ada") == 1

    async with running(mailer(settings_for(database_url, partitions=1), send), MemoryLog()) as runtime:
        assert runtime.pool is not None
        async with runtime.pool.acquire() as other, other.transaction():
            await other.execute("select 1 from headrace.claim for update")
            await publish(runtime, confirmed("ada"))
            await until(
                lambda: value(runtime, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"),
                "the batch waits for the claim",
            )
            assert called == []
        await until_done(runtime)
        assert called == ["ada"]


async def test_failed_call_is_tried_again_and_holds_its_key_alone(database_url: str) -> None:
    calls: list[tuple[str, int]] = []
    keys: set[str] = set()

    async def send(event: Confirmed, step: Step) -> None:
        calls.append((event.customer, event.number))
        if event.customer == "bad":
            keys.add(step.key)
            if len([each for each in calls if each == ("bad", 0)]) < 3:
                raise ConnectionError("no answer")

    async with running(mailer(settings_for(database_url), send), MemoryLog()) as runtime:
        await publish(runtime, confirmed("bad", 0), confirmed("bad", 1), *(confirmed(f"c{n}") for n in range(20)))
        await until_done(runtime)
        assert [each for each in calls if each[0] == "bad"] == [("bad", 0)] * 3 + [("bad", 1)]
        assert len(calls) == 24
        assert len(keys) == 2, "a key for each event, the same for each of its runs"
        labels = {"subscription": "mails", "error": "ConnectionError"}
        assert sample(runtime, "handler_errors_total", **labels) == 2


async def test_call_that_is_given_up_on_is_a_dead_letter(database_url: str) -> None:
    is_mended = [False]

    async def send(event: Confirmed, step: Step) -> None:
        if event.number == 0 and not is_mended[0]:
            raise KeyError(event.customer)
        if event.number == 1:
            raise DeadLetter("no such address")
        if event.number == 2:
            raise Skip

    async with running(mailer(settings_for(database_url), send, attempts=2), MemoryLog()) as runtime:
        await publish(runtime, *(confirmed("ada", number) for number in range(4)))
        await until_done(runtime)
        letters = await fetch(runtime, "select reason, handler, attempts, error from headrace.dead_letter order by 1")
        assert [tuple(each)[:3] for each in letters] == [("asked", "mail", 1), ("gave_up", "mail", 2)]
        assert "no such address" in letters[0]["error"]
        assert "KeyError" in letters[1]["error"]
        is_mended[0] = True
        await execute(database_url, "update headrace.dead_letter set decision = 'replay' where reason = 'gave_up'")
        await until(lambda: _sent(runtime, {0, 3}), "the replayed letter has its effect")
        await assert_promises_hold(database_url)


@pytest.mark.parametrize("lost", ["answer", "commit"])
async def test_end_of_calls_whose_commit_is_in_doubt_is_written_once(database_url: str, lost: str) -> None:
    """One call is done and one is given up on: one event, one dead letter, and each is counted once."""
    is_cut, began = asyncio.Event(), Counter[str]()

    async def send(event: Confirmed, step: Step) -> None:
        began[event.customer] += 1
        await is_cut.wait()
        if event.customer == "bad":
            raise DeadLetter("no such address")

    async with PostgresProxy(database_url) as proxy:
        settings = settings_for(proxy.url, partitions=1)
        async with running(mailer(settings, send), MemoryLog()) as runtime:
            await publish(runtime, confirmed("bad"), confirmed("good"))
            await until(lambda: len(began) == 2, "both calls are under way")
            proxy.drop_answer_to_commit() if lost == "answer" else proxy.drop_commit()
            is_cut.set()
            await until_done(runtime)
            await publish(runtime, confirmed("good", 1))
            await until(lambda: _sent(runtime, {0, 1}), "the effects go on")
            assert (proxy.cuts, began) == (1, {"bad": 1, "good": 2})
            assert await value(runtime, "select count(*) from headrace.dead_letter") == 1
            assert sample(runtime, "effects_ended_total", outcome="given_up") == 1
            await until(lambda: sample(runtime, "effects_ended_total", outcome="done") == 2, "both are counted")
            assert isinstance(runtime.log, MemoryLog)
            assert sum(len(records) for records in runtime.log._topics["sent"]) == 2
            await assert_promises_hold(database_url)


async def _sent(runtime: Runtime, numbers: set[int]) -> bool:
    log = runtime.log
    assert isinstance(log, MemoryLog)
    values = [each.value or b"" for records in log._topics["sent"] for each in records]
    return {number for number in range(10) if any(b'"number":%d' % number in each for each in values)} == numbers


async def test_limits_are_checked_at_import(database_url: str) -> None:
    subscription = Headrace("shop").subscription("mails")
    with pytest.raises(ConfigurationError, match="concurrency=0 is wrong; it is a number from 1 to 100,000"):
        subscription.effect(Confirmed, concurrency=0)(_send)
    with pytest.raises(ConfigurationError, match="per_second=-1 is wrong; it is a number above 0"):
        subscription.effect(Confirmed, per_second=-1)(_send)
    with pytest.raises(ConfigurationError, match="so it must be `async def _blocking"):
        subscription.effect(Confirmed)(_blocking)
    with pytest.raises(ConfigurationError, match="a Step is for effects"):
        subscription.on(Confirmed)(_send)


async def _send(event: Confirmed, step: Step) -> None: ...


def _blocking(event: Confirmed) -> None: ...


async def test_calls_of_a_release_that_has_no_effects_are_dead_letters(database_url: str) -> None:
    settings, log, begun, never = (
        settings_for(database_url, partitions=1),
        MemoryLog(),
        asyncio.Event(),
        asyncio.Event(),
    )

    async def send(event: Confirmed, step: Step) -> None:
        begun.set()
        await never.wait()

    async with running(mailer(settings, send), log) as runtime:
        await publish(runtime, confirmed("ada", 0), confirmed("ada", 1))
        await until(lambda: value(runtime, "select count(*) = 2 from headrace.effect"), "both are there")
        await until(begun.is_set, "the first is called")
        await die(runtime)
    platform, seen = Headrace("shop", settings), list[int]()

    @platform.subscription("mails").on(Confirmed)
    def note(event: Confirmed) -> None:
        seen.append(event.number)

    async with running(platform, log) as runtime:
        await publish(runtime, confirmed("ada", 2))
        await until(lambda: value(runtime, "select count(*) = 2 from headrace.dead_letter"), "they are dead letters")
        await until(lambda: seen == [2], "events are taken")
        assert await value(runtime, "select array_agg(distinct reason) from headrace.dead_letter") == ["unknown_type"]
        assert await waiting(runtime) == 0


async def test_retry_is_at_once_for_an_owner_whose_clock_is_slow(database_url: str) -> None:
    calls: list[int] = []

    async def send(event: Confirmed, step: Step) -> None:
        calls.append(event.number)
        if len(calls) == 1:
            raise KeyError

    platform = mailer(settings_for(database_url, partitions=1), send, attempts=1, at_end="hold")
    async with watched(platform, MemoryLog()) as runtime:
        await publish(runtime, confirmed("ada"))
        held = "select count(*) from headrace.effect where due_at = 'infinity'"
        await until(lambda: value(runtime, held), "it is held")
        tenure = runtime.consumers["mails"].workers[0].tenure
        assert tenure is not None
        tenure.outside.runner._now = lambda: time.time() - 3_600
        assert runtime.pool is not None
        async with runtime.pool.acquire() as connection:
            assert await retry(connection, Filter("mails")) == 1
        await until_done(runtime)
        assert calls == [0, 0]
