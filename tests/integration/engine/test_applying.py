"""Every event is applied once, and every record ends as something that is counted."""

from __future__ import annotations

from typing import Any

from headrace import Emit, Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, Record
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.platform import (
    Notes,
    fetch,
    notebook,
    noted,
    pages,
    publish,
    record,
    running,
    sample,
    settings_for,
    spread,
    states,
    until_settled,
    value,
)
from tests.support.waiting import until


async def test_duplicate_is_applied_once(database_url: str, topic_name: str) -> None:
    """Within a batch, across batches and across a restart."""
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1), topic_name)
    one, two, three = (noted(topic_name, "a", number, id=f"id-{number}") for number in (1, 2, 3))
    async with running(platform, log) as runtime:
        await publish(runtime, one, one, two, one)
        await until_settled(runtime, "notes")
        await publish(runtime, two, three, one)
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2, 3]}
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 4
    async with running(platform, log) as runtime:
        await publish(runtime, one, two, three, noted(topic_name, "a", 4, id="id-4"))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2, 3, 4]}
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 3


async def test_duplicate_of_a_parked_event_is_skipped(database_url: str, topic_name: str) -> None:
    broken, log = True, MemoryLog()

    def fail(event: Any) -> None:
        if broken:
            raise ValueError("not yet")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name, fail)
    one = noted(topic_name, "a", 1, id="one")
    async with running(platform, log) as runtime:
        await publish(runtime, one, one)
        await until(lambda: sample(runtime, "events_skipped_total", reason="duplicate_id") == 1, "it is skipped")
    async with running(platform, log) as runtime:
        await publish(runtime, one)
        await until(lambda: sample(runtime, "events_skipped_total", reason="duplicate_id") == 1, "it is skipped again")
        broken = False
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def test_duplicate_of_an_event_that_was_given_up_is_skipped(database_url: str, topic_name: str) -> None:
    """A person decides about it, not a producer that sends it again."""

    def fail(event: Any) -> None:
        raise ValueError("always")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1), topic_name, fail)
    async with running(platform, MemoryLog()) as runtime:
        for _ in range(2):
            await publish(runtime, noted(topic_name, "a", 1, id="one"))
            await until_settled(runtime, "notes")
        letters = await fetch(runtime, "select reason, attempts, handler from headrace.dead_letter")
        assert [tuple(row) for row in letters] == [("gave_up", 1, "note")]
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 1


async def test_state_that_was_changed_elsewhere_is_read_again(database_url: str, topic_name: str) -> None:
    """Nobody's change is lost, although the owner had kept the state in memory."""
    async with running(notebook(settings_for(database_url, partitions=1), topic_name), MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "b", 1))
        await until_settled(runtime, "notes")
        await fetch(
            runtime,
            """update headrace.state set version = version + 1, data = '{"numbers": [1, 99]}' where key = 'a'""",
        )
        await publish(runtime, noted(topic_name, "a", 2), noted(topic_name, "b", 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 99, 2], "b": [1, 2]}
        assert sample(runtime, "batch_reruns_total", cause="conflict") == 1


async def test_same_id_of_another_source_is_another_event(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    one = noted(topic_name, "a", 1, id="one")
    headers = [("ce_source", b"/elsewhere") if name == "ce_source" else (name, held) for name, held in one.headers]
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, one, NewRecord(one.topic, one.key, one.value, headers))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 1]}


async def test_event_that_did_not_fit_its_schema_may_come_again_mended(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, record(topic_name, "noted", {"page": "a", "number": "one"}, key="a", id="one"))
        await until_settled(runtime, "notes")
        assert await value(runtime, "select reason from headrace.dead_letter") == "schema"
        await publish(runtime, noted(topic_name, "a", 1, id="one"), noted(topic_name, "a", 1, id="one"))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def test_window_smaller_than_the_stream_forgets_old_ids(database_url: str, topic_name: str) -> None:
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1, dedupe_window_ids=10), topic_name)
    async with running(platform, log) as runtime:
        for number in range(20):
            await publish(runtime, noted(topic_name, "a", number, id=f"id-{number}"))
            await until_settled(runtime, "notes")
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 15, id="id-15"), noted(topic_name, "a", 2, id="id-2"))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [*range(20), 2]}


async def test_counts_add_up_in_metrics_and_ledger(database_url: str, topic_name: str) -> None:
    def fail(event: Any) -> None:
        if event.page == "broken":
            raise ValueError("always")

    platform = notebook(settings_for(database_url, retry_attempts=2), topic_name, fail)

    class Ignored(Event, type="ignored", topic=topic_name):
        page: str

    platform.declare(Ignored)
    records = spread(topic_name, [f"page-{number}" for number in range(10)], 10)
    records += [noted(topic_name, "broken", number) for number in range(3)]
    records += [records[5], records[6], records[6]]
    records += [record(topic_name, "ignored", {"page": "a"}, key="a"), record(topic_name, "strange", {}, key="a")]
    records += [NewRecord(topic_name, None, b"not an event", []), NewRecord(topic_name, b"a", None, [])]
    records += [record(topic_name, "noted", {"page": "a"}, key="a")]
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *records)
        await until_settled(runtime, "notes")
        row = (
            await fetch(
                runtime,
                "select sum(next_offset - first_offset), sum(applied), sum(skipped), sum(parked), "
                "sum(dead) from headrace.ledger where kind = 0",
            )
        )[0]
        fetched, applied, skipped, parked, dead = map(int, row)
        assert (fetched, applied, skipped, parked, dead) == (len(records), 100, 4, 3, 4)
        assert sample(runtime, "log_fetched_records_total") == fetched
        assert sample(runtime, "events_applied_total") == applied
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 3
        assert sample(runtime, "events_skipped_total", reason="unhandled") == 1
        assert sample(runtime, "events_parked_total") == parked
        released = "select sum(dead) from headrace.ledger where kind = 1"
        assert await value(runtime, released) == sample(runtime, "lane_released_total", outcome="dead_lettered") == 3
        assert sample(runtime, "events_dead_lettered_total") == dead + 3
        assert await value(runtime, "select count(*) from headrace.dead_letter") == dead + 3
        assert await value(runtime, "select sum(length(ids)) from headrace.ledger") == 16 * (applied + parked)


async def test_two_topics_of_one_subscription_share_the_state_of_a_key(database_url: str, topic_name: str) -> None:
    settings = settings_for(database_url)
    platform, other = notebook(settings, topic_name), f"{topic_name}-other"

    class Crossed(Event, type="crossed", topic=other, key="page"):
        page: str
        number: int

    @platform.registry.subscriptions["notes"].on(Crossed)
    def cross(event: Crossed, kept: State[Notes]) -> None:
        kept.numbers.append(-event.number)

    names, log = [f"page-{number}" for number in range(12)], MemoryLog()
    for _ in range(2):
        async with running(platform, log) as runtime:
            for number in range(1, 11):
                await publish(runtime, *(noted(topic_name, page, number) for page in names))
                await publish(
                    runtime, *(record(other, "crossed", {"page": page, "number": number}, key=page) for page in names)
                )
            await until_settled(runtime, "notes")
            found = await pages(runtime)
    assert set(found) == set(names)
    for numbers in found.values():
        assert [number for number in numbers if number > 0] == [*range(1, 11), *range(1, 11)]
        assert [-number for number in numbers if number < 0] == [*range(1, 11), *range(1, 11)]


async def test_foreign_records_are_read_by_the_teams_decoder(database_url: str, topic_name: str) -> None:
    platform, foreign = _with_foreign(settings_for(database_url, partitions=2), topic_name)
    log = MemoryLog()
    await log.create(foreign, 2)
    async with running(platform, log) as runtime:
        await publish(
            runtime,
            NewRecord(foreign, b"a", b"a 1", []),
            NewRecord(foreign, b"a", b"", []),
            NewRecord(foreign, b"a", b"a one", [("trace", b"\xff")]),
            NewRecord(foreign, b"a", b"a 2", []),
        )
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}
        assert sample(runtime, "events_skipped_total", reason="unhandled") == 1
        letter = (await fetch(runtime, "select reason, error, value from headrace.dead_letter"))[0]
        assert (letter["reason"], letter["value"]) == ("decode", b"a one")
        assert f"the decoder of topic '{foreign}' raised ValueError: invalid literal" in letter["error"]


async def test_lane_may_hold_foreign_records_and_events(database_url: str, topic_name: str) -> None:
    """Each is read in the lane as it was when it came."""
    broken = True

    def fail() -> None:
        if broken:
            raise ValueError("not yet")

    settings = settings_for(database_url, partitions=2, retry_attempts=1_000)
    platform, foreign = _with_foreign(settings, topic_name, fail)
    log = MemoryLog()
    await log.create(foreign, 2)
    keys = ["a", "b", "c", "d"]
    async with running(platform, log) as runtime:
        for key in keys:
            await publish(runtime, noted(topic_name, key, 1), NewRecord(foreign, key.encode(), f"{key} 2".encode(), []))
        await until(lambda: _waits(runtime, 8), "all wait in lanes")
        broken = False
        await until_settled(runtime, "notes", "echoes")
        assert {page: sorted(numbers) for page, numbers in (await pages(runtime)).items()} == {k: [1, 2] for k in keys}
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0
        echoes = await states(runtime, "echoes", "notes")
        assert {page: sorted(notes["numbers"]) for page, notes in echoes.items()} == {"all": [1, 1, 1, 1, 2, 2, 2, 2]}


async def test_two_subscriptions_read_a_topic_each_at_its_own_pace(database_url: str, topic_name: str) -> None:
    settings, log = settings_for(database_url), MemoryLog()
    async with running(notebook(settings, topic_name), log) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "b"], 5))
        await until_settled(runtime, "notes")
        early = notebook(settings, topic_name, subscription="early")
        late = notebook(settings, topic_name, subscription="late", start="latest")
        async with running(early, log) as second, running(late, log) as third:
            await publish(runtime, *(noted(topic_name, page, 6) for page in "ab"))
            await until_settled(runtime, "notes")
            await until_settled(second, "early")
            await until_settled(third, "late")
        assert await states(runtime, "early", "notes") == await states(runtime, "notes", "notes")
        assert await states(runtime, "late", "notes") == {"a": {"numbers": [6]}, "b": {"numbers": [6]}}


def _with_foreign(settings: Settings, topic: str, before: Any = lambda: None) -> tuple[Headrace, str]:
    """A notebook that also reads a foreign topic of lines "page number", and echoes what it applied."""
    platform, foreign = Headrace("notebook", settings), f"{topic}-foreign"

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    class Line(Event, type="line", topic=foreign, key="page"):
        page: str
        number: int

    class Echoed(Event, type="echoed", topic=f"{topic}-echoes"):
        number: int

    notes = platform.subscription("notes")

    @notes.on(Noted, Line)
    def note(event: Noted | Line, kept: State[Notes], emit: Emit) -> None:
        before()
        kept.numbers.append(event.number)
        emit(Echoed(number=event.number), key="all")

    echoes = platform.subscription("echoes")

    @echoes.on(Echoed)
    def echo(event: Echoed, kept: State[Notes]) -> None:
        kept.numbers.append(event.number)

    @platform.decoder(foreign)
    def decode(line: Record) -> Line | None:
        if not line.value:
            return None
        page, number = line.value.decode().split()
        return Line(page=page, number=int(number))

    return platform, foreign


async def _waits(runtime: Runtime, count: int) -> bool:
    return bool(await value(runtime, "select count(*) from headrace.parked") == count)


async def test_counters_of_rare_things_stand_at_zero(database_url: str, topic_name: str) -> None:
    """An increase to one is an increase only if the zero was seen."""
    async with running(notebook(settings_for(database_url), topic_name), MemoryLog()) as runtime:
        found = runtime.metrics.registry.get_sample_value
        labels = {"subscription": "notes", "topic": topic_name}
        assert found("headrace_claim_fenced_total", {"subscription": "notes"}) == 0
        assert found("headrace_events_dead_lettered_total", labels | {"reason": "decode"}) == 0
