"""What only Postgres refuses is one event's fault: it is found and parked, and the rest of its batch is applied."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from tests.support.platform import (
    client,
    execute,
    fetch,
    notebook,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    spread,
    states,
    until_settled,
    value,
)
from tests.support.services import (
    GOOD_PAGES,
    bookings,
    quoted,
    quotes,
)
from tests.support.waiting import until

NUL = "a\x00b"


async def test_key_with_a_nul_becomes_a_dead_letter(database_url: str, topic_name: str) -> None:
    """It is parked first, and the rest of its batch is applied."""
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=3), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        records = [noted(topic_name, f"page-{number}", 1) for number in range(200)]
        records.insert(117, noted(topic_name, NUL, 1, id="refused"))
        await publish(runtime, *records)
        await until(lambda: _parked(runtime, "refused"), "the event is parked")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {f"page-{number}": [1] for number in range(200)}
        letter = await fetch(runtime, "select * from headrace.dead_letter")
        assert [(row["event_id"], row["reason"], row["key"]) for row in letter] == [
            ("refused", "gave_up", NUL.encode())
        ]
        assert "invalid byte sequence" in letter[0]["error"]
        assert letter[0]["value"] == records[117].value
        assert sample(runtime, "events_parked_total") == 1


async def test_key_with_a_nul_over_http_becomes_a_dead_letter(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=2), topic_name)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        for page in ("a", NUL, "b"):
            assert (await http.post("/events/noted", json={"page": page, "number": 1})).status_code == 202
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1], "b": [1]}
        (letter,) = (await http.get("/dead-letters")).json()["dead_letters"]
        assert (letter["reason"], letter["key"], letter["attempts"]) == ("gave_up", NUL, 2)


@pytest.mark.parametrize("characters", [513, 600, 6_000])
async def test_key_that_no_index_can_hold_is_refused(database_url: str, topic_name: str, characters: int) -> None:
    """Over HTTP it is refused with 422; from the log it becomes a dead letter."""
    platform, page = notebook(settings_for(database_url, partitions=1), topic_name), "x" * characters
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        answer = await http.post("/events/noted", json={"page": page, "number": 1})
        assert answer.status_code == 422, answer.text
        assert f"the key has {characters:,} characters" in answer.text
        await publish(
            runtime, noted(topic_name, page, 1), noted(topic_name, "\N{OX}" * 512, 1), noted(topic_name, "a", 1)
        )
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"\N{OX}" * 512: [1], "a": [1]}
        letters = await fetch(runtime, "select reason, error, record_key from headrace.dead_letter")
        assert [(row["reason"], row["record_key"]) for row in letters] == [("schema", page.encode())]


async def test_parked_key_may_be_as_long_as_a_key_may_be(database_url: str, topic_name: str) -> None:
    def fail(event: Any) -> None:
        raise ValueError("always")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=2), topic_name, fail)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "\N{OX}" * 512, 1))
        await until_settled(runtime, "notes")
        letter = await value(runtime, "select reason from headrace.dead_letter")
        assert letter == "gave_up"


async def test_event_whose_parking_is_refused_is_a_dead_letter(database_url: str, topic_name: str) -> None:
    await execute(database_url, "alter table headrace.parked add check (event_id <> 'refused')")

    def fail(event: Any) -> None:
        if event.page == "bad":
            raise ValueError("always")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=3), topic_name, fail)
    async with running(platform, MemoryLog()) as runtime:
        records = spread(topic_name, GOOD_PAGES, 2)
        records.insert(11, noted(topic_name, "bad", 1, id="refused"))
        await publish(runtime, *records)
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {page: [1, 2] for page in GOOD_PAGES}
        letters = await fetch(runtime, "select event_id, reason, error from headrace.dead_letter")
        assert [(row["event_id"], row["reason"]) for row in letters] == [("refused", "gave_up")]
        assert "parked" in letters[0]["error"]


async def test_state_with_a_nul_parks_its_event_and_nothing_else(database_url: str, topic_name: str) -> None:
    platform = quotes(settings_for(database_url, partitions=1, retry_attempts=2), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        texts = [f"text {number}" for number in range(50)]
        texts[20], texts[40] = NUL, NUL
        await publish(runtime, *(quoted(topic_name, f"page-{n}", text) for n, text in enumerate(texts)))
        await until_settled(runtime, "quotes")
        found = await states(runtime, "quotes", "quotes")
        assert found == {f"page-{n}": {"texts": [text]} for n, text in enumerate(texts) if text != NUL}
        assert await value(runtime, "select count(*) from headrace.dead_letter where reason = 'gave_up'") == 2


async def test_events_of_a_lane_are_not_blamed_for_one_behind_them(database_url: str, topic_name: str) -> None:
    broken = True

    def fail(event: Any) -> None:
        if broken:
            raise ValueError("not yet")

    quick: dict[str, Any] = {"retry_attempts": 30, "retry_first_seconds": 0.01, "retry_max_seconds": 0.02}
    platform = quotes(settings_for(database_url, partitions=1, **quick), topic_name, fail)
    async with running(platform, MemoryLog()) as runtime:
        texts = ["first", "second", NUL, "fourth", "fifth"]
        await publish(runtime, *(quoted(topic_name, "a", text, id=text) for text in texts))
        await until(lambda: _parked(runtime, "fifth"), "all events wait in the lane")
        broken = False
        await until_settled(runtime, "quotes")
        assert await _has(runtime, "a", ["first", "second", "fourth", "fifth"])
        letters = await fetch(runtime, "select event_id, attempts from headrace.dead_letter")
        assert [tuple(row) for row in letters] == [(NUL.replace("\x00", "\N{REPLACEMENT CHARACTER}"), 30)]


async def test_constraint_that_only_commit_checks_parks_its_event(database_url: str, topic_name: str) -> None:
    await execute(
        database_url,
        "create table public.booking (page text, number int, unique (number) deferrable initially deferred)",
    )
    platform = bookings(settings_for(database_url, partitions=1, retry_attempts=2), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        numbers = [*range(1, 40), 7, *range(40, 80)]
        await publish(runtime, *(noted(topic_name, f"page-{at}", n) for at, n in enumerate(numbers)))
        await until_settled(runtime, "bookings")
        rows = await fetch(runtime, "select page, number from booking order by number")
        assert [row["number"] for row in rows] == list(range(1, 80))
        assert await states(runtime, "bookings", "notes") == {row["page"]: {"numbers": [row["number"]]} for row in rows}
        letters = await fetch(runtime, "select reason, key, error from headrace.dead_letter")
        assert [(row["reason"], row["key"]) for row in letters] == [("gave_up", b"page-39")]
        assert "booking_number_key" in letters[0]["error"]


async def test_constraint_that_a_statement_breaks_parks_its_event(database_url: str, topic_name: str) -> None:
    """The SQL of the other events is kept, in one batch."""
    await execute(database_url, "create table public.booking (page text, number int unique)")
    platform = bookings(settings_for(database_url, partitions=1, retry_attempts=2), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        numbers = [*range(1, 40), 7, *range(40, 80)]
        await publish(runtime, *(noted(topic_name, f"page-{at}", n) for at, n in enumerate(numbers)))
        await until_settled(runtime, "bookings")
        rows = await fetch(runtime, "select page, number from booking order by number")
        assert [row["number"] for row in rows] == list(range(1, 80))
        assert await states(runtime, "bookings", "notes") == {row["page"]: {"numbers": [row["number"]]} for row in rows}
        letters = await fetch(runtime, "select reason, key, error from headrace.dead_letter")
        assert [(row["reason"], row["key"]) for row in letters] == [("gave_up", b"page-39")]
        assert "UniqueViolationError" in letters[0]["error"]
        assert await value(runtime, "select count(*) from headrace.ledger where kind = 0") == 1, "the batch was halved"


@pytest.mark.parametrize("count", [1, 20])
async def test_sql_error_that_the_handler_swallows_parks_its_event(
    database_url: str, topic_name: str, count: int
) -> None:
    await execute(database_url, "create table public.booking (page text, number int unique)")
    platform = bookings(settings_for(database_url, partitions=1, retry_attempts=2), topic_name, swallow=True)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "first", 7))
        await until_settled(runtime, "bookings")
        await publish(
            runtime, *(noted(topic_name, f"page-{n}", 7 if n == 3 % count else 100 + n) for n in range(count))
        )
        await until_settled(runtime, "bookings")
        letters = await fetch(runtime, "select reason, key from headrace.dead_letter")
        assert [(row["reason"], row["key"]) for row in letters] == [("gave_up", f"page-{3 % count}".encode())]
        assert await value(runtime, "select count(*) from booking") == count
        assert len(await states(runtime, "bookings", "notes")) == count


async def _has(runtime: Runtime, page: str, texts: list[str]) -> bool:
    return bool((await states(runtime, "quotes", "quotes")).get(page, {}).get("texts") == texts)


async def _parked(runtime: Runtime, event_id: str) -> bool:
    return bool(await value(runtime, "select count(*) from headrace.parked where event_id = $1", event_id))
