"""A failing event holds back its own key and nothing else; it is tried again, and in the end given up on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import asyncpg
import msgspec
import pytest

from headrace import Event, Headrace, State
from headrace.engine.claim import KILLED
from headrace.ledger.dead_letters import Replay
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.log.stored import stored_record
from headrace.runtime import Runtime
from tests.support.platform import (
    Notes,
    client,
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
    until_settled,
    value,
)
from tests.support.waiting import until


class Trouble:
    """Raises for the pages that are broken, and counts the runs of each event."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.runs: Counter[tuple[str, int]] = Counter()

    def __call__(self, event: Any) -> None:
        self.runs[event.page, event.number] += 1
        if event.page in self.broken:
            raise ValueError(f"page {event.page} is broken")


async def test_parked_key_waits_in_order_and_holds_no_other_back(database_url: str, topic_name: str) -> None:
    trouble = Trouble("a")
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name, trouble)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "b", "c"], 3))
        await until(lambda: _noted(runtime, {"b": [1, 2, 3], "c": [1, 2, 3]}), "other keys are applied")
        await publish(runtime, *(noted(topic_name, page, number) for number in (4, 5) for page in "abc"))
        await until(lambda: _noted(runtime, {"b": [1, 2, 3, 4, 5], "c": [1, 2, 3, 4, 5]}), "other keys flow on")
        rows = await fetch(runtime, "select reason, value from headrace.parked order by number")
        assert [row["reason"] for row in rows] == ["handler_error", *["behind_key"] * 4]
        assert trouble.runs["a", 2] == 0, "an event ran before the one ahead of it"
        trouble.broken.clear()
        await until_settled(runtime, "notes")
        assert (await pages(runtime))["a"] == [1, 2, 3, 4, 5]
        assert sample(runtime, "lane_released_total", outcome="applied") == 5


async def test_dead_letter_follows_the_last_attempt(database_url: str, topic_name: str) -> None:
    """The events that waited behind it run afterwards."""
    broken = {1, 3}
    runs: Counter[int] = Counter()

    def fail(event: Any) -> None:
        runs[event.number] += 1
        if event.number in broken:
            raise ValueError(f"number {event.number} is broken")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=4), topic_name, fail)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a"], 5))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [2, 4, 5]}
        letters = await fetch(runtime, 'select "offset", reason, error, attempts, handler from headrace.dead_letter')
        assert [(row["offset"], row["reason"], row["attempts"]) for row in letters] == [
            (0, "gave_up", 4),
            (2, "gave_up", 4),
        ]
        assert [row["error"].partition(": ")[2] for row in letters] == ["number 1 is broken", "number 3 is broken"]
        assert runs[1] == 1 + 4, "a quick run finds the fault, then it has four of its own"
        assert runs[3] == 4, "it was found while the lane ran with care"


async def test_lane_survives_a_restart_with_its_attempts_and_its_order(database_url: str, topic_name: str) -> None:
    trouble, log = Trouble("a"), MemoryLog()
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name, trouble)
    async with running(platform, log) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "b"], 3))
        await until(lambda: _has_tried(runtime, 4), "the head was tried three times")  # a stop gives the last one back
    async with running(platform, log) as runtime:
        assert await value(runtime, "select attempts from headrace.lane") >= 3
        await publish(runtime, noted(topic_name, "a", 4))
        await until(lambda: _has_tried(runtime, 5), "the head was tried twice more")
        trouble.broken.clear()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2, 3, 4], "b": [1, 2, 3]}


async def test_attempts_are_counted_across_restarts(database_url: str, topic_name: str) -> None:
    trouble, log = Trouble("a"), MemoryLog()
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=6), topic_name, trouble)
    for _ in range(2):
        async with running(platform, log) as runtime:
            if not trouble.runs:
                await publish(runtime, noted(topic_name, "a", 1))
                await until(lambda: _has_tried(runtime, 2), "the head was tried twice")
            else:
                await until_settled(runtime, "notes")
                assert await value(runtime, "select attempts from headrace.dead_letter") == 6
    assert trouble.runs["a", 1] == 1 + 6


async def test_event_whose_runs_all_killed_the_process_is_given_up(
    database_url: str, topic_name: str, pool: asyncpg.Pool
) -> None:
    """Runs are counted before they start: who finds the count used up knows that the last run never came back.

    Its followers run once.
    """
    trouble, log = Trouble("a"), MemoryLog()
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name, trouble)
    async with running(platform, log) as runtime:
        await publish(runtime, *spread(topic_name, ["a"], 4))
        await until(lambda: _waits(runtime, 4), "all wait in the lane")
    await pool.execute("update headrace.lane set attempts = 1000, error = $1", KILLED)
    trouble.broken.clear()
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [2, 3, 4]}
        (letter,) = await fetch(runtime, 'select "offset", reason, error from headrace.dead_letter')
        assert (letter["offset"], letter["reason"]) == (0, "gave_up")
        assert "the process died each time" in letter["error"]


async def test_single_attempt_means_no_second_run(database_url: str, topic_name: str) -> None:
    trouble = Trouble("a")
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1), topic_name, trouble)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "b"], 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"b": [1, 2]}
        letters = await fetch(runtime, "select error, attempts from headrace.dead_letter")
        assert [tuple(row) for row in letters] == [("note raised ValueError: page a is broken", 1)] * 2
        assert trouble.runs["a", 1] == 2, "once quickly with its batch, once with care"
        assert trouble.runs["a", 2] == 1, "the lane runs with care from the beginning"


async def test_long_lane_runs_to_its_end_in_parts(database_url: str, topic_name: str) -> None:
    trouble = Trouble("a")
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name, trouble)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a"], 350))
        await until(lambda: _waits(runtime, 350), "all wait in the lane")
        trouble.broken.clear()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": list(range(1, 351))}
        runs = await value(runtime, "select count(*) from headrace.ledger where kind = 1 and applied > 0")
        assert runs == 5, "its head alone, and four parts"


async def test_failing_handler_leaves_no_trace_in_the_state(database_url: str, topic_name: str) -> None:
    """The handler changes the state first and raises then; the events around it share its batch and its key."""
    platform = Headrace("notebook", settings_for(database_url, partitions=1, retry_attempts=2))

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    notes = platform.subscription("notes")

    @notes.on(Noted)
    def note(event: Noted, kept: State[Notes]) -> None:
        kept.numbers.append(event.number)
        if event.number == 2:
            raise ValueError("too late")

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "b"], 3))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 3], "b": [1, 3]}


async def test_replayed_dead_letter_is_applied_by_a_mended_handler(database_url: str, topic_name: str) -> None:
    trouble = Trouble("a")
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=2), topic_name, trouble)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "b", 1))
        await until_settled(runtime, "notes")
        letter = (await http.get("/dead-letters")).json()["dead_letters"][0]
        trouble.broken.clear()
        await publish(runtime, noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")

        answer = await http.post(f"/dead-letters/{letter['id']}/replay")
        assert answer.status_code == 200, answer.text
        await until(lambda: _noted(runtime, {"a": [2, 1], "b": [1]}), "the event is applied")
        await until_settled(runtime, "notes")
        assert (await http.get("/dead-letters")).json()["dead_letters"] == []
        assert (await http.post(f"/dead-letters/{letter['id']}/replay")).status_code == 409
        settled = await http.get(f"/dead-letters/{letter['id']}")
        assert settled.json()["settled_at"] is not None


async def test_replay_that_fails_again_becomes_a_dead_letter_again(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=2), topic_name, Trouble("a"))
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
        letter = (await http.get("/dead-letters")).json()["dead_letters"][0]
        await http.post(f"/dead-letters/{letter['id']}/replay")
        await until(lambda: _letters(runtime, 2), "it was given up on a second time")
        (again,) = (await http.get("/dead-letters")).json()["dead_letters"]
        assert (again["event_id"], again["attempts"]) == (letter["event_id"], 2)
        assert again["id"] != letter["id"]


async def test_replayed_events_of_a_key_run_in_the_order_of_the_log(database_url: str, topic_name: str) -> None:
    trouble = Trouble("a")
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1), topic_name, trouble)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, *spread(topic_name, ["a"], 5))
        await until(lambda: _letters(runtime, 5), "all were given up on")
        await until_settled(runtime, "notes")
        trouble.broken.clear()
        letters = (await http.get("/dead-letters")).json()["dead_letters"]
        await http.post("/subscriptions/notes/pause")
        await until(lambda: sample(runtime, "subscription_paused") == 1, "paused")
        for letter in letters:
            assert (await http.post(f"/dead-letters/{letter['id']}/replay")).status_code == 200
        await http.post("/subscriptions/notes/resume")
        await until(lambda: _noted(runtime, {"a": [1, 2, 3, 4, 5]}), "all are applied")


async def test_replay_that_is_seen_twice_is_applied_once(database_url: str, topic_name: str) -> None:
    """The watch reads what is to be replayed while the worker takes the same replay up."""
    trouble = Trouble("a")
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1), topic_name, trouble)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: _letters(runtime, 1), "it was given up on")
        trouble.broken.clear()
        row = (await fetch(runtime, "select * from headrace.dead_letter"))[0]
        await http.post(f"/dead-letters/{row['id']}/replay")
        await until(lambda: _noted(runtime, {"a": [1]}), "it is applied")

        worker = runtime.consumers["notes"].workers[0]
        worker.orders.replays = [Replay(row["id"], row["reason"], stored_record(row, 0))]
        await until(lambda: not worker.orders.replays, "the worker took it up again")
        await publish(runtime, noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}


async def test_discarded_dead_letter_is_closed_and_never_applied(database_url: str, topic_name: str) -> None:
    trouble = Trouble("a")
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1), topic_name, trouble)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: _letters(runtime, 1), "it was given up on")
        trouble.broken.clear()
        letter = (await http.get("/dead-letters")).json()["dead_letters"][0]
        assert (await http.post(f"/dead-letters/{letter['id']}/discard")).status_code == 200
        await publish(runtime, noted(topic_name, "a", 2))
        await until(lambda: _noted(runtime, {"a": [2]}), "later events are applied")
        assert (await http.post(f"/dead-letters/{letter['id']}/replay")).status_code == 409
        assert (await http.get("/dead-letters")).json()["dead_letters"] == []


RECORDS = {
    "decode": NewRecord(
        "", b"\xff\x00", b"\xff not JSON", [("content-type", b"application/json"), ("odd", b"\xfe\x00")]
    ),
    "tombstone": NewRecord("", b"a", None, []),
    "unknown_type": record("", "strange", {"page": "a"}, key="a"),
    "schema": record("", "noted", {"page": "a", "number": "one"}, key="a"),
}


@pytest.mark.parametrize("kind", RECORDS)
async def test_record_that_is_no_event_stays_open_after_a_replay(database_url: str, topic_name: str, kind: str) -> None:
    """It is kept byte for byte, and a replay that fails again leaves it open."""
    given = RECORDS[kind]
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, NewRecord(topic_name, given.key, given.value, given.headers), noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}
        row = (await fetch(runtime, "select * from headrace.dead_letter"))[0]
        assert (row["record_key"], row["value"]) == (given.key, given.value)
        assert _headers(row["headers"]) == [tuple(header) for header in given.headers]
        assert row["reason"] == ("decode" if kind == "tombstone" else kind)

        await http.post(f"/dead-letters/{row['id']}/replay")
        await until(lambda: _was_reopened(runtime, row["id"]), "the replay was refused, and it is open again")
        assert await pages(runtime) == {"a": [1]}
        assert await _letters(runtime, 1)
        assert (await http.post(f"/dead-letters/{row['id']}/discard")).status_code == 200


def _headers(packed: bytes) -> list[tuple[str, bytes]]:
    return msgspec.msgpack.decode(packed, type=list[tuple[str, bytes]])


async def _noted(runtime: Runtime, expected: dict[str, list[int]]) -> bool:
    return await pages(runtime) == expected


async def _waits(runtime: Runtime, count: int) -> bool:
    return bool(await value(runtime, "select count(*) = $1 from headrace.parked", count))


async def _letters(runtime: Runtime, count: int) -> bool:
    return bool(await value(runtime, "select count(*) = $1 from headrace.dead_letter", count))


async def _has_tried(runtime: Runtime, attempts: int) -> bool:
    return bool(await value(runtime, "select attempts >= $1 from headrace.lane", attempts))


async def _was_reopened(runtime: Runtime, letter: object) -> bool:
    """True from the time that the worker took the replay up and gave it back."""
    sql = "select decision is null and decided_at is null from headrace.dead_letter where id = $1"
    return bool(await value(runtime, sql, letter))
