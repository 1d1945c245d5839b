"""An emitted event leaves if and only if its cause is committed, once, whatever dies in between."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from headrace import Emit, Event, Headrace, State
from headrace.cloudevents import decode_record
from headrace.engine import retry
from headrace.engine.accept import accept_topic
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.log.ports import TopicPartition
from headrace.settings import Settings
from tests.support.platform import (
    Notes,
    client,
    fetch,
    noted,
    publish,
    running,
    sample,
    settings_for,
    spread,
    states,
    until_settled,
    value,
)
from tests.support.refusing_logs import Dam
from tests.support.waiting import until

PAGES = [f"page-{number}" for number in range(6)]


async def test_emits_that_the_log_refused_are_published_in_order(database_url: str, topic_name: str) -> None:
    """They are published in their order as soon as the log takes them."""
    dam = Dam()
    async with running(_echoing(settings_for(database_url, partitions=1), topic_name), dam) as runtime:
        dam.is_closed = True
        await publish(runtime, *spread(topic_name, PAGES, 3))
        await until(lambda: dam.refused, "emits are refused")
        assert await value(runtime, "select count(*) from headrace.ledger where emits is not null") > 0
        assert await states(runtime, "echoes", "notes") == {}
        await publish(runtime, *(noted(topic_name, page, number) for number in (4, 5) for page in PAGES))
        dam.is_closed = False
        await until(lambda: _echoed(runtime, 5), "all are echoed")
        assert await _echoes(runtime) == {page: [1, 2, 3, 4, 5] for page in PAGES}


async def test_new_owner_publishes_the_emits_that_the_old_one_left(database_url: str, topic_name: str) -> None:
    """The subscription downstream applies each of them once."""
    dam = Dam()
    platform = _echoing(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, dam) as first:
        dam.is_closed = dam.swallows_answers = True  # the log has them, and nobody knows
        await publish(first, *spread(topic_name, PAGES, 3))
        await until(lambda: dam.refused, "emits are refused")
        async with running(platform, dam, is_waiting=True) as second:  # while the first one is alive
            await until(lambda: _is_claimed_twice(second), "the second owner has claimed")
            dam.is_closed = False
            await until(lambda: _echoed(second, 3), "all are echoed")
            await publish(second, *(noted(topic_name, page, 4) for page in PAGES))
            await until(lambda: _echoed(second, 4), "all are echoed")
            assert await _echoes(second) == {page: [1, 2, 3, 4] for page in PAGES}
            # The first one lives on, and may have claimed back in between.
            assert sample(first, "emits_republished_total") + sample(second, "emits_republished_total") > 0
            assert await value(second, "select count(*) from headrace.ledger where skipped > 0") > 0, (
                "no duplicate came"
            )


async def test_emits_of_partitions_that_are_gone_still_leave(database_url: str, topic_name: str) -> None:
    """The topic is made again with fewer partitions, before the owner could publish what it had committed."""
    dam, topics = Dam(), (topic_name, f"{topic_name}-echoes")
    gone = next(page for page in map(str, range(99)) if partition_for(page.encode(), 3) == 2)
    pages = [*PAGES, gone]

    async def is_echoed() -> bool:
        return await _echoes(runtime) == {page: [1, 2, 3] for page in pages}

    async with running(_echoing(settings_for(database_url, partitions=3), topic_name), dam) as runtime:
        dam.is_closed = True
        await publish(runtime, *spread(topic_name, pages, 3))
        applied = f"select sum(applied) = {3 * len(pages)} from headrace.ledger where emits is not null"
        await until(lambda: value(runtime, applied), "all is applied and emitted")
    log, connection = MemoryLog(), await asyncpg.connect(database_url)
    for topic in topics:
        await log.create(topic, 2)
        await accept_topic(connection, log, topic, window_ids=1_000)
    await connection.close()
    async with running(_echoing(settings_for(database_url, partitions=2), topic_name), log) as runtime:
        await until(is_echoed, "all are echoed, in order")


async def test_emits_are_marked_when_the_stream_stands_still(database_url: str, topic_name: str) -> None:
    log = MemoryLog()
    platform = _echoing(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, *spread(topic_name, PAGES, 1))
        await until_settled(runtime, "notes", "echoes")
        await until(lambda: _is_marked(runtime), "the claim says that the log has the emits")
    async with running(platform, log) as runtime:
        assert sample(runtime, "emits_republished_total") == 0


async def test_reader_waits_while_too_many_emits_are_on_their_way(database_url: str, topic_name: str) -> None:
    dam = Dam()
    settings = settings_for(database_url, partitions=1, emits_pending=20, batch_records=10)
    async with running(_echoing(settings, topic_name), dam) as runtime:
        dam.is_closed = True
        await publish(runtime, *spread(topic_name, PAGES, 50))
        await until(lambda: _is_past(runtime, 21), "more than 20 emits wait")
        await until(lambda: dam.refused > 3, "the relay has tried again")
        assert (
            await value(runtime, "select sum(applied) from headrace.ledger where subscription = 'notebook.notes'") <= 30
        )
        dam.is_closed = False
        await until(lambda: _echoed(runtime, 50), "all are echoed")
        assert await _echoes(runtime) == {page: list(range(1, 51)) for page in PAGES}


async def test_pause_stops_effects_while_emits_wait(database_url: str, topic_name: str) -> None:
    """What a partition does beside its events goes on, and is steered, though the log takes nothing."""
    dam = Dam()
    platform = _echoing(settings_for(database_url, partitions=1, emits_pending=5), topic_name)

    class Paid(Event, type="paid", topic=topic_name, key="page"):
        page: str

    @platform.registry.subscriptions["notes"].effect(Paid)
    async def pay(event: Paid) -> None: ...

    async with running(platform, dam) as runtime:
        dam.is_closed = True
        await publish(runtime, *spread(topic_name, PAGES, 5))
        await until(lambda: dam.refused > 2, "what was emitted does not leave")
        tenure = runtime.consumers["notes"].workers[0].tenure
        assert tenure is not None and not tenure.outside.runner.is_paused
        async with client(platform) as http:
            assert (await http.post("/subscriptions/notes/pause")).is_success
        await until(lambda: tenure.outside.runner.is_paused, "no call begins any more")
        dam.is_closed = False


async def test_lanes_wait_while_too_many_emits_are_on_their_way(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "MOST_LANES", 1)
    dam, is_broken = Dam(), True

    def fail(event: Any) -> None:
        if is_broken:
            raise ValueError("not yet")

    waits: dict[str, Any] = {"retry_first_seconds": 600.0, "retry_max_seconds": 600.0, "outage_keys": 0}
    settings, names = settings_for(database_url, partitions=1, emits_pending=5, **waits), [f"p-{n}" for n in range(40)]
    platform = _echoing(settings, topic_name, fail)
    async with running(platform, dam) as runtime, client(platform) as http:
        dam.is_closed = True
        await publish(runtime, *spread(topic_name, names, 1))
        await until(lambda: value(runtime, "select count(*) = 40 from headrace.lane"), "all are parked")
        is_broken = False
        await http.post("/subscriptions/notes/lanes/retry")
        await until(lambda: dam.refused > 4, "the relay has tried again")
        assert await value(runtime, "select count(*) from headrace.lane") >= 30
        dam.is_closed = False
        await until_settled(runtime, "notes", "echoes")


async def test_failing_event_emits_nothing_and_a_retry_emits_once(database_url: str, topic_name: str) -> None:
    failures = 3

    def fail(event: Any) -> None:
        nonlocal failures
        if event.number == 2 and failures:
            failures -= 1
            raise ValueError("not yet")

    async with running(_echoing(settings_for(database_url, partitions=1), topic_name, fail), MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a"], 3))
        await until_settled(runtime, "notes", "echoes")
        await until(lambda: _echoed(runtime, 3), "all are echoed")
        assert await _echoes(runtime) == {"a": [1, 2, 3]}
        assert sample(runtime, "emits_committed_total") == 3


async def test_emitted_event_names_its_cause(database_url: str, topic_name: str) -> None:
    log = MemoryLog()
    async with running(_echoing(settings_for(database_url, partitions=1), topic_name), log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1, id="the-cause"))
        await until(lambda: _echoed(runtime, 1), "it is echoed")
        reader = await log.reader({TopicPartition(f"{topic_name}-echoes", 0): 0})
        (record,) = (await reader.fetch(10, 2**20, 1.0))[TopicPartition(f"{topic_name}-echoes", 0)]
        await reader.close()
        envelope, data = decode_record(record)
        assert (envelope.causationid, envelope.correlationid, envelope.partitionkey) == ("the-cause", "the-cause", "a")
        assert (envelope.source, envelope.type, data) == ("/notebook/notes", "echoed", b'{"page":"a","number":1}')


async def test_emit_of_an_undeclared_type_parks_the_event(database_url: str, topic_name: str) -> None:
    class Stranger(Event, type="stranger", topic="strangers"):
        name: str

    platform = _echoing(
        settings_for(database_url, partitions=1, retry_attempts=1), topic_name, emitted=Stranger(name="x")
    )
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
        assert (
            "write events.declare(Stranger)"
            in (await fetch(runtime, "select error from headrace.dead_letter"))[0]["error"]
        )
        assert await states(runtime, "notes", "notes") == {}


def _echoing(settings: Settings, topic: str, before: Any = lambda event: None, emitted: Any = None) -> Headrace:
    """A notebook that echoes each event it notes, and notes the echoes in a second subscription."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    class Echoed(Event, type="echoed", topic=f"{topic}-echoes", key="page"):
        page: str
        number: int

    notes, echoes = platform.subscription("notes"), platform.subscription("echoes")

    @notes.on(Noted)
    def note(event: Noted, kept: State[Notes], emit: Emit) -> None:
        kept.numbers.append(event.number)
        emit(emitted or Echoed(page=event.page, number=event.number))
        before(event)

    @echoes.on(Echoed)
    def echo(event: Echoed, kept: State[Notes]) -> None:
        kept.numbers.append(event.number)

    return platform


async def _echoes(runtime: Any) -> dict[str, list[int]]:
    return {page: notes["numbers"] for page, notes in (await states(runtime, "echoes", "notes")).items()}


async def _echoed(runtime: Any, number: int) -> bool:
    """True if every page's echo of the number has arrived."""
    noted_pages, echoes = await states(runtime, "notes", "notes"), await _echoes(runtime)
    return bool(noted_pages) and all(number in echoes.get(page, []) for page in noted_pages)


async def _is_claimed_twice(runtime: Any) -> bool:
    return bool(await value(runtime, "select epoch = 2 from headrace.claim where subscription = 'notebook.notes'"))


async def _is_marked(runtime: Any) -> bool:
    sql = "select emitted_through = sequence and sequence > 0 from headrace.claim where subscription = 'notebook.notes'"
    return bool(await value(runtime, sql))


async def _is_past(runtime: Any, applied: int) -> bool:
    sql = "select coalesce(sum(applied), 0) from headrace.ledger where subscription = 'notebook.notes'"
    return bool(await value(runtime, sql) >= applied)
