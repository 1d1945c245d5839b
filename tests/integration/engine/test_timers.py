"""A timer's event leaves at its time, by the clock of Postgres, once, whoever owns its partition by then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import asyncpg
import pytest

from headrace import Emit, Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from headrace.timers.store import take_due
from tests.support.auditing import assert_promises_hold
from tests.support.platform import (
    Notes,
    execute,
    fetch,
    publish,
    record,
    running,
    sample,
    settings_for,
    states,
    until_settled,
    value,
    watched,
)
from tests.support.postgres_proxy import PostgresProxy
from tests.support.refusing_logs import Dam
from tests.support.waiting import until

FAR = 3_600
"""Seconds: no test waits that long, it moves the row's time instead."""

Action = Literal["set", "cancel", "cancel all", "set and fail"]


async def test_event_leaves_at_its_time_and_not_before(database_url: str, topic_name: str) -> None:
    async with running(_reminders(settings_for(database_url, partitions=1), topic_name), MemoryLog()) as runtime:
        await publish(runtime, _asked(topic_name, "a", after=0.2), _asked(topic_name, "b", after=FAR))
        await until(lambda: _are_reminded(runtime, "a"), "a's time has come")
        (row,) = await fetch(runtime, "select * from headrace.timer")
        assert (row["key"], row["type"], row["subscription"]) == (b"b", "reminded", "reminders.asking")
        assert sample(runtime, "timers_fired_total") == 1


async def test_time_is_that_of_postgres(database_url: str, topic_name: str) -> None:
    """A row whose time has come fires, whatever the process believes: here it was told an hour."""
    log, platform = MemoryLog(), _reminders(settings_for(database_url), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, _asked(topic_name, "a", after=FAR))
        await until(lambda: _timers(runtime), "it is set")
    await execute(database_url, "update headrace.timer set due_at = clock_timestamp() - interval '1 second'")
    async with running(platform, log) as runtime:
        await until(lambda: _are_reminded(runtime, "a"), "its time has come")
        assert sample(runtime, "timers_late_seconds_sum") >= 1


async def test_at_names_a_time(database_url: str, topic_name: str) -> None:
    time = datetime(2040, 1, 2, 3, 4, tzinfo=UTC)
    async with running(_reminders(settings_for(database_url), topic_name), MemoryLog()) as runtime:
        await publish(runtime, _asked(topic_name, "a", at=time), _asked(topic_name, "b", at=datetime.now(UTC)))
        await until(lambda: _are_reminded(runtime, "b"), "what is due now leaves now")
        assert await value(runtime, "select due_at from headrace.timer") == time


async def test_cancelled_timer_never_fires(database_url: str, topic_name: str) -> None:
    async with running(_reminders(settings_for(database_url), topic_name), MemoryLog()) as runtime:
        await publish(
            runtime,
            _asked(topic_name, "a", after=FAR, name="first"),
            _asked(topic_name, "a", after=FAR, name="second"),
            _asked(topic_name, "b", after=FAR, name="first"),
            _asked(topic_name, "c", after=FAR),
            _asked(topic_name, "c", after=FAR, name="first"),
        )
        await until_settled(runtime, "asking")
        assert len(await _timers(runtime)) == 5
        await publish(runtime, _asked(topic_name, "a", "cancel", name="first"), _asked(topic_name, "c", "cancel all"))
        await until_settled(runtime, "asking")
        assert [(row["key"], row["name"]) for row in await _timers(runtime)] == [(b"a", "second"), (b"b", "first")]


async def test_second_set_of_a_name_moves_the_timer(database_url: str, topic_name: str) -> None:
    """Within a batch, and in a later one: the last one counts, and one event leaves."""
    async with running(_reminders(settings_for(database_url), topic_name), MemoryLog()) as runtime:
        await publish(
            runtime,
            _asked(topic_name, "a", after=0.0, number=1, name="again"),
            _asked(topic_name, "a", "cancel", name="again"),
            _asked(topic_name, "a", after=FAR, number=2, name="again"),
        )
        await until_settled(runtime, "asking")
        await publish(runtime, _asked(topic_name, "a", after=0.05, number=3, name="again"))
        await until(lambda: _are_reminded(runtime, "a"), "the last one's time has come")
        assert await states(runtime, "reminded", "notes") == {"a": {"numbers": [3]}}
        assert await _timers(runtime) == []


async def test_handler_that_fails_sets_and_cancels_nothing(database_url: str, topic_name: str) -> None:
    """Its neighbours in the batch do: each of them is undone alone."""
    settings = settings_for(database_url, partitions=1, retry_attempts=1)
    async with running(_reminders(settings, topic_name), MemoryLog()) as runtime:
        await publish(
            runtime,
            _asked(topic_name, "a", after=FAR, name="kept"),
            _asked(topic_name, "b", "set and fail", after=FAR),
            _asked(topic_name, "c", after=FAR),
        )
        await until_settled(runtime, "asking")
        await until(lambda: value(runtime, "select count(*) = 1 from headrace.dead_letter"), "b was given up on")
        assert [row["key"] for row in await _timers(runtime)] == [b"a", b"c"]


async def test_handler_that_runs_again_sets_its_timer_once(database_url: str, topic_name: str) -> None:
    async with running(_reminders(settings_for(database_url), topic_name), MemoryLog()) as runtime:
        await publish(runtime, _asked(topic_name, "a", after=0.05, failures=2))
        await until_settled(runtime, "asking")
        await until(lambda: _are_reminded(runtime, "a"), "its time has come")
        await until_settled(runtime, "reminded")
        assert await states(runtime, "reminded", "notes") == {"a": {"numbers": [0]}}


async def test_next_owner_fires_what_the_former_one_set(database_url: str, topic_name: str) -> None:
    log = MemoryLog()
    platform = _reminders(settings_for(database_url), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, *(_asked(topic_name, key, after=FAR) for key in "abc"))
        await until_settled(runtime, "asking")
    await execute(database_url, "update headrace.timer set due_at = clock_timestamp()")
    async with running(platform, log) as runtime:
        await until(lambda: _are_reminded(runtime, "abc"), "their time has come")
        assert sample(runtime, "timers_fired_total") == 3
    await assert_promises_hold(database_url)


async def test_death_between_firing_and_publishing_loses_nothing(database_url: str, topic_name: str) -> None:
    """The row is gone and the log has no event: the next owner finds it in the ledger."""
    dam = Dam()
    dam.is_closed = True
    async with running(_reminders(settings_for(database_url, partitions=1), topic_name), dam) as runtime:
        await publish(runtime, _asked(topic_name, "a", after=0.0))
        await until(lambda: dam.refused, "it has fired, and is not published")
        assert await _timers(runtime) == []
        (worker,) = runtime.consumers["asking"].workers.values()
        assert worker.tenure is not None
        worker.tenure.abandon()  # what it has in memory is gone
        dam.is_closed = False
        await until(lambda: _are_reminded(runtime, "a"), "it has arrived")
        assert sample(runtime, "emits_republished_total") == 1


async def test_firing_whose_commit_was_not_answered_is_counted(database_url: str, topic_name: str) -> None:
    """The timers are gone and their events leave: the counters of both say so."""
    async with PostgresProxy(database_url) as proxy:
        platform = _reminders(settings_for(proxy.url, partitions=1), topic_name)
        async with running(platform, MemoryLog()) as runtime:
            await publish(runtime, _asked(topic_name, "a", after=1.0))
            await until(lambda: _timers(runtime), "it is set")
            proxy.drop_answer_to_commit()
            await until(lambda: _are_reminded(runtime, "a"), "it has left")
            assert sample(runtime, "db_commit_unknown_total", resolved="committed") == 1
            assert sample(runtime, "timers_fired_total") == 1
            assert sample(runtime, "emits_committed_total") == 1


async def test_event_that_is_published_twice_has_one_effect(database_url: str, topic_name: str) -> None:
    """The owner dies when the log has the event and before anybody knows: the next one publishes it again."""
    dam = Dam()
    dam.is_closed = dam.swallows_answers = True  # the log has the event, and nobody knows
    platform = _reminders(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, dam) as first:
        await publish(first, _asked(topic_name, "a", after=0.0))
        await until(lambda: dam.refused, "it has fired, and is not known to be published")
        assert await _timers(first) == []
        async with running(platform, dam, is_waiting=True) as second:  # while the first one is alive
            await until(lambda: _is_claimed_twice(second), "the second owner has claimed")
            dam.is_closed = False
            await until(lambda: _are_reminded(second, "a"), "it has arrived")
            await publish(second, record(f"{topic_name}-echoes", "reminded", {"key": "b", "number": 7}, key="b"))
            await until(lambda: _are_reminded(second, "ab"), "whatever came before has arrived as well")
            assert (await states(second, "reminded", "notes"))["a"] == {"numbers": [0]}
            assert await value(second, "select count(*) from headrace.ledger where skipped > 0") > 0, "no copy came"


async def test_timers_too_many_for_one_transaction_fire_in_parts(database_url: str, topic_name: str) -> None:
    log, platform = MemoryLog(), _reminders(settings_for(database_url, partitions=1), topic_name)
    keys = [f"key-{number}" for number in range(20)]
    async with running(platform, log) as runtime:
        await publish(runtime, *(_asked(topic_name, key, after=FAR) for key in keys))
        await until_settled(runtime, "asking")
    await execute(database_url, _SMALL_ROWS)
    await execute(database_url, "update headrace.timer set due_at = clock_timestamp()")
    async with running(platform, log) as runtime:
        await until(lambda: _are_reminded(runtime, *keys), "all have left")
        assert await value(runtime, "select count(*) > 1 from headrace.ledger where kind = 4")


async def test_fenced_owner_fires_nothing(database_url: str, topic_name: str) -> None:
    """What it removed comes back with its transaction, and the next owner fires it."""
    platform = _reminders(settings_for(database_url, partitions=1), topic_name)
    log = MemoryLog()
    async with running(platform, log) as runtime:
        await publish(runtime, _asked(topic_name, "a", after=FAR))
        await until_settled(runtime, "asking")
        (worker,) = runtime.consumers["asking"].workers.values()
        tenure = worker.tenure
        assert tenure is not None
        await execute(database_url, "update headrace.timer set due_at = clock_timestamp()")
        await execute(database_url, "update headrace.claim set epoch = epoch + 1, token = gen_random_uuid()")
        tenure.memory.timers.learn(0.0)
        await until(lambda: _are_reminded(runtime, "a"), "the next tenure has fired it")
        await until_settled(runtime, "reminded")
        assert await states(runtime, "reminded", "notes") == {"a": {"numbers": [0]}}
        assert sample(runtime, "claim_fenced_total") >= 1


async def test_timers_that_wait_are_shown(database_url: str, topic_name: str) -> None:
    log, platform = MemoryLog(), _reminders(settings_for(database_url), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, *(_asked(topic_name, key, after=FAR) for key in "abc"))
        await until_settled(runtime, "asking")
    async with watched(platform, log) as runtime:
        await until(lambda: sample(runtime, "timers_pending") == 3, "all are counted")
        assert sample(runtime, "timers_due") == 0


@pytest.mark.parametrize("timers", [0, 200_000])
async def test_timers_that_are_not_due_are_not_read(database_url: str, topic_name: str, timers: int) -> None:
    """With many of them the owner asks no more often, and Postgres reads no more rows, than with none."""
    platform = _reminders(settings_for(database_url, partitions=1), topic_name)
    log = MemoryLog()
    async with running(platform, log) as runtime:
        await publish(runtime, _asked(topic_name, "a", after=0.0))
        await until(lambda: _are_reminded(runtime, "a"), "the topic is known")
    connection = await asyncpg.connect(database_url)
    await connection.execute(_MANY, timers)
    await connection.execute("vacuum analyze headrace.timer")
    async with running(platform, log) as runtime:
        await until(lambda: value(runtime, "select 1"), "it runs")
        before = await _reads(connection)
        await publish(runtime, *(_asked(topic_name, f"due-{number}", after=0.0) for number in range(10)))
        await until(lambda: _are_reminded(runtime, *(f"due-{number}" for number in range(10))), "those due have left")
        read = await _reads(connection) - before
    await connection.close()
    assert read < 1_000, f"{read} rows of the table and its indexes were read for 10 timers"


async def test_due_timers_are_taken_up_to_a_number_of_bytes(pool: asyncpg.Pool) -> None:
    """The longest due first, and one at least."""
    async with pool.acquire() as borrowed:
        connection: Any = borrowed
        await connection.execute(_LARGE)
        limits = ((3, 250), (3, 1), (3, 1_000), (3, 1_000))
        taken = [await take_due(connection, "notes", 0, *limit) for limit in limits]
    keys = [b"".join(timer.record.key or b"" for timer in part) for part in taken]
    assert keys == [b"12", b"3", b"456", b"7"]


_LARGE = """
insert into headrace.timer (subscription, partition, type, key, name, due_at, topic, value, headers)
select 'notes', 0, 't', number::text::bytea, 'n', now() - interval '1 hour' + number * interval '1 second', 'notes',
       decode(repeat('00', 100), 'hex'), '\\x90' from generate_series(1, 7) as number
"""

_SMALL_ROWS = """
create function refuse() returns trigger language plpgsql as $$
begin
    if octet_length(new.emits) > 3000 then raise exception 'too large' using errcode = '22000'; end if;
    return new;
end $$;
create trigger refuse before insert on headrace.ledger for each row execute function refuse();
"""

_MANY = """
insert into headrace.timer (subscription, type, key, name, partition, due_at, topic, headers)
select 'reminders.asking', 'reminded', convert_to(n::text, 'UTF8'), 'n', 0, now() + n * interval '1 hour', 't', ''
from generate_series(1, $1::int) n
"""


async def _reads(connection: asyncpg.Connection) -> int:
    await connection.execute("select pg_stat_force_next_flush()")
    sql = """select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables
             where relname = 'timer' and pg_stat_clear_snapshot() is not null"""
    return int(await connection.fetchval(sql))


def _reminders(settings: Settings, topic: str) -> Headrace:
    """A service that reminds whoever asked for it, and notes the reminders in a second subscription."""
    platform = Headrace("reminders", settings)

    class Asked(Event, type="asked", topic=topic, key="key"):
        key: str
        action: Action = "set"
        number: int = 0
        after: float | None = None
        at: datetime | None = None
        name: str | None = None
        failures: int = 0

    class Reminded(Event, type="reminded", topic=f"{topic}-echoes", key="key"):
        key: str
        number: int

    asking, reminded = platform.subscription("asking"), platform.subscription("reminded")
    runs = dict[str, int]()

    @asking.on(Asked)
    def ask(event: Asked, emit: Emit) -> None:
        if event.action == "cancel all":
            emit.cancel(Reminded, event.key)
        elif event.action == "cancel":
            emit.cancel(Reminded, event.key, event.name)
        else:
            after = None if event.after is None else timedelta(seconds=event.after)
            emit(Reminded(key=event.key, number=event.number), after=after, at=event.at, name=event.name)
        runs[event.key] = runs.get(event.key, 0) + 1
        if event.action == "set and fail" or runs[event.key] <= event.failures:
            emit.cancel(Reminded, "a", "kept")
            raise ValueError("what it did is undone")

    @reminded.on(Reminded)
    def remind(event: Reminded, kept: State[Notes]) -> None:
        kept.numbers.append(event.number)

    return platform


def _asked(topic: str, key: str, action: Action = "set", **data: Any) -> Any:
    at = data.pop("at", None)
    return record(topic, "asked", {"key": key, "action": action, "at": at and at.isoformat(), **data}, key=key)


async def _timers(runtime: Any) -> list[Any]:
    return await fetch(runtime, "select * from headrace.timer order by key, name")


async def _are_reminded(runtime: Any, *keys: str) -> bool:
    wanted = set(keys[0]) if len(keys) == 1 else set(keys)
    return wanted <= set(await states(runtime, "reminded", "notes"))


async def _is_claimed_twice(runtime: Any) -> bool:
    return bool(await value(runtime, "select epoch = 2 from headrace.claim where subscription = 'reminders.asking'"))
