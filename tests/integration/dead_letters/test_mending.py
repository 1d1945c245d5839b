"""An edited event is replayed once, in order, under its own identity; and many are replayed in the order of the log."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.ledger import dead_letters as owner
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from tests.support.platform import (
    client,
    fetch,
    has_pages,
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
    watched,
)
from tests.support.waiting import until


class Dislike:
    """Refuses the numbers that it was told of."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = set(numbers)

    def __call__(self, event: Any) -> None:
        if event.number in self.numbers:
            raise LookupError(f"number {event.number} is disliked")


async def test_edited_event_is_applied_once_as_itself(database_url: str, topic_name: str) -> None:
    """A copy of the record that its producer sent is a duplicate of it then, and no conflict; so for the next owner."""
    log, dislike = MemoryLog(), Dislike(13)
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1), topic_name, dislike)
    unlucky = noted(topic_name, "a", 13, id="unlucky")
    async with watched(platform, log) as runtime, client(platform) as http:
        await publish(runtime, unlucky, noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        (letter,) = (await http.get("/dead-letters", params={"error_type": "LookupError"})).json()["dead_letters"]
        path = f"/dead-letters/{letter['id']}"
        edit = await http.post(f"{path}/edit", json={"data": {"page": "a", "number": 12}})
        assert edit.status_code == 200, edit.text
        assert (await http.post(f"{path}/replay")).status_code == 200
        await until(lambda: has_pages(runtime, {"a": [2, 12]}), "the edited event is applied")
        await publish(runtime, unlucky)
        await until_settled(runtime, "notes")
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 1
    async with running(platform, log) as runtime:
        await publish(runtime, unlucky)
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [2, 12]}
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 1
        assert sample(runtime, "events_conflict_total") == 0


async def test_event_that_was_unreadable_is_mended(database_url: str, topic_name: str) -> None:
    """It never was in the window of known events. A copy that its producer sends is a duplicate all the same."""
    log = MemoryLog()
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    wrong = record(topic_name, "noted", {"page": "a", "number": "one"}, key="a", id="wrong")
    async with watched(platform, log) as runtime, client(platform) as http:
        await publish(runtime, wrong)
        await until_settled(runtime, "notes")
        (letter,) = (await http.get("/dead-letters", params={"reason": "schema"})).json()["dead_letters"]
        path = f"/dead-letters/{letter['id']}"
        assert letter["error_type"] == "SchemaError"
        other_page = await http.post(f"{path}/edit", json={"data": {"page": "b", "number": 1}})
        assert other_page.status_code == 422
        assert (await http.post(f"{path}/edit", json={"data": {"page": "a", "number": 1}})).status_code == 200
        assert (await http.post(f"{path}/replay")).status_code == 200
        await until(lambda: has_pages(runtime, {"a": [1]}), "the mended event is applied")
        await publish(runtime, wrong)
        await until_settled(runtime, "notes")
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 1
        assert sample(runtime, "events_conflict_total") == 0
        assert await pages(runtime) == {"a": [1]}


async def test_event_that_fails_again_keeps_record_and_history(database_url: str, topic_name: str) -> None:
    """Its new dead letter has the record as the log has it, what was made of it, and who did what before."""
    dislike = Dislike(13, 14)
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1), topic_name, dislike)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 13))
        await until_settled(runtime, "notes")
        (first,) = (await http.get("/dead-letters")).json()["dead_letters"]
        edit = {"data": {"page": "a", "number": 14}, "why": "fourteen was meant"}
        assert (await http.post(f"/dead-letters/{first['id']}/edit", json=edit)).status_code == 200
        assert (await http.post("/dead-letters/replay", json={"where": {}, "why": "try it"})).status_code == 200
        await until(lambda: _has_letters(runtime, 2), "it is a dead letter again")
        (again,) = (await http.get("/dead-letters")).json()["dead_letters"]
        assert again["id"] != first["id"] and again["edited"]
        shown = (await http.get(f"/dead-letters/{again['id']}")).json()
        assert shown["value"] == '{"page": "a", "number": 13}'
        assert [(done["did"], done["why"]) for done in shown["history"]] == [
            ("edit", "fourteen was meant"),
            ("replay", "try it"),
        ]
        dislike.numbers.clear()
        assert (await http.post(f"/dead-letters/{again['id']}/replay")).status_code == 200
        await until(lambda: has_pages(runtime, {"a": [14]}), "the edited event is applied")


async def test_refused_replay_says_so_in_its_history(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1), topic_name, Dislike(13))
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 13, id="one"))
        await until_settled(runtime, "notes")
        await fetch(runtime, 'update headrace.dead_letter set "offset" = 7 returning id')
        assert (await http.post("/dead-letters/replay", json={"where": {}})).json()["decided"] == 1
        await until(lambda: value(runtime, "select jsonb_array_length(history) = 2 from headrace.dead_letter"), "open")
        (letter,) = (await http.get("/dead-letters")).json()["dead_letters"]
        shown = (await http.get(f"/dead-letters/{letter['id']}")).json()
        assert [done["did"] for done in shown["history"]] == ["replay", "refuse"]
        assert "was taken at offset 0" in shown["history"][1]["why"]


@pytest.mark.parametrize("at_once", [2, 1_000])
async def test_many_replays_keep_the_order_of_each_key(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Also if they are decided, and taken up, a few at a time; each is applied once."""
    monkeypatch.setattr(owner, "MOST_REPLAYS", at_once)
    dislike = Dislike(*range(1, 8))
    platform = notebook(settings_for(database_url, partitions=2, retry_attempts=1), topic_name, dislike)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, *spread(topic_name, ["a", "b", "c"], 7))
        await until_settled(runtime, "notes")
        assert await _has_letters(runtime, 21)
        dislike.numbers.clear()
        cursor: str | None = None
        while True:
            body = {"where": {"error_type": "LookupError"}, "limit": 4, "cursor": cursor}
            cursor = (await http.post("/dead-letters/replay", json=body)).json()["next"]
            if cursor is None:
                break
        expected = {page: list(range(1, 8)) for page in "abc"}
        await until(lambda: has_pages(runtime, expected), "all are applied, in order")
        await until_settled(runtime, "notes")
        assert await value(runtime, "select count(*) from headrace.dead_letter where settled_at is null") == 0


async def _has_letters(runtime: Runtime, count: int) -> bool:
    return bool(await value(runtime, "select count(*) = $1 from headrace.dead_letter", count))
