"""States that expire, and states whose class changes, in a real Postgres."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from headrace import Event, Headrace, State, keep, upcast
from headrace.audit.memory import audit_memory
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from headrace.state.codec import StateType
from headrace.state.expiry import counter, remove_all, remove_some
from headrace.state.migrate import migrate
from tests.support.platform import (
    client,
    execute,
    fetch,
    noted,
    publish,
    running,
    sample,
    settings_for,
    states,
    until_settled,
    value,
)
from tests.support.waiting import until


def notebook(settings: Settings, topic: str, model: type[Any]) -> Headrace:
    """Return a service that keeps the numbers of each page in a state named `page` of some class."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    def note(event: Noted, page: Any) -> None:
        page.numbers.append(event.number)

    note.__annotations__ = {"event": Noted, "page": State[model], "return": None}  # type: ignore[valid-type, misc]
    platform.subscription("notes").on(Noted)(note)
    return platform


def mortal(ttl: timedelta) -> type[Any]:
    @keep(ttl=ttl)
    class Page(BaseModel):
        numbers: list[int] = []

    return Page


async def test_event_after_the_end_of_a_state_begins_anew(database_url: str, topic_name: str) -> None:
    """The owner has it in memory, and Postgres has its row still."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name, mortal(timedelta(seconds=1)))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert await states(runtime, "notes", "page") == {"a": {"numbers": [1, 2]}}
        began = time.monotonic()
        await until(lambda: time.monotonic() > began + 1.1, "its time is over")
        async with client(platform) as http:
            assert (await http.get("/state/notes/page/a")).status_code == 404
        await publish(runtime, noted(topic_name, "a", 3))
        await until_settled(runtime, "notes")
        assert await states(runtime, "notes", "page") == {"a": {"numbers": [3]}}
        assert await value(runtime, "select version from headrace.state") == 2


async def test_expired_state_in_memory_is_no_finding_of_the_audit(database_url: str, topic_name: str) -> None:
    """Postgres tells nothing of it, or has removed its row; of what lives, another value is a finding."""
    settings, log = settings_for(database_url, partitions=1), MemoryLog()
    async with running(notebook(settings, topic_name, mortal(timedelta(seconds=1))), log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "b", 1))
        await until_settled(runtime, "notes")
        tenure = runtime.consumers["notes"].workers[0].tenure
        assert tenure is not None
        context = tenure.processor.context
        gone = "select count(*) = 2 from headrace.state where expires_at < clock_timestamp()"
        await until(lambda: value(runtime, gone), "their time is over")
        assert await audit_memory(context, "notebook.notes", 0, tenure) == []
        await execute(database_url, "delete from headrace.state where key = 'a'")
        assert await audit_memory(context, "notebook.notes", 0, tenure) == []
    async with running(notebook(settings, topic_name, mortal(timedelta(hours=1))), log) as runtime:
        await publish(runtime, noted(topic_name, "c", 1))
        await until_settled(runtime, "notes")
        await execute(database_url, "update headrace.state set version = 7 where key = 'c'")
        tenure = runtime.consumers["notes"].workers[0].tenure
        assert tenure is not None
        (finding,) = await audit_memory(tenure.processor.context, "notebook.notes", 0, tenure)
        assert finding.detail == "the page of 'c' is version 7, but its owner remembers version 1."


async def test_next_owner_does_not_see_what_has_expired(database_url: str, topic_name: str) -> None:
    settings, log, model = settings_for(database_url, partitions=1), MemoryLog(), mortal(timedelta(hours=1))
    async with running(notebook(settings, topic_name, model), log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "b", 1))
        await until_settled(runtime, "notes")
    await execute(database_url, "update headrace.state set expires_at = now() - interval '1 second' where key = 'a'")
    async with running(notebook(settings, topic_name, model), log) as runtime:
        await publish(runtime, noted(topic_name, "a", 2), noted(topic_name, "b", 2))
        await until_settled(runtime, "notes")
        assert await states(runtime, "notes", "page") == {"a": {"numbers": [2]}, "b": {"numbers": [1, 2]}}
        ends = await fetch(runtime, "select expires_at > now() + interval '59 minutes' as is_later from headrace.state")
        assert [row["is_later"] for row in ends] == [True, True], "each change lets it live for its whole time"


async def test_expired_rows_are_removed_behind_the_grace(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=1), topic_name, mortal(timedelta(hours=1)))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, f"page-{number}", number) for number in range(30)))
        await until_settled(runtime, "notes")
        ages = "update headrace.state set expires_at = now() - interval '1 minute' * (substr(key, 6)::int - 10)"
        await execute(database_url, ages)
        assert runtime.pool is not None
        count = counter(runtime.metrics, "notebook")
        await remove_all(runtime.pool.acquire, count)
        assert sample(runtime, "states_expired_total", subscription="notes", state="page") == 10
        left = {row["key"] for row in await fetch(runtime, "select key from headrace.state")}
        assert left == {f"page-{number}" for number in range(20)}
        assert await remove_some(runtime.pool.acquire, timedelta(minutes=-5)) == {("notebook.notes", "page"): 15}
        count("another.notes", "page", 3)
        assert sample(runtime, "states_expired_total", subscription="other", state="other") == 3
        await publish(runtime, noted(topic_name, "page-12", 99))
        await until_settled(runtime, "notes")
        found = await states(runtime, "notes", "page")
        assert found["page-12"]["numbers"][-1:] == [99], "a state that the owner knows may be written again"


async def test_class_without_a_time_keeps_what_it_writes(database_url: str, topic_name: str) -> None:
    settings, log = settings_for(database_url, partitions=1), MemoryLog()

    class Page(BaseModel):
        numbers: list[int] = []

    for model in (mortal(timedelta(hours=1)), Page):
        async with running(notebook(settings, topic_name, model), log) as runtime:
            await publish(runtime, noted(topic_name, "a", 1))
            await until_settled(runtime, "notes")
            kept = await value(runtime, "select expires_at is null from headrace.state")
            assert kept is (model is Page)


class OldPage(BaseModel):
    """Version 1."""

    numbers: list[int] = []


OldPage.__name__ = "Page"


@keep(version=2)
class Page(BaseModel):
    """Version 2: what was a list of numbers has their count as well."""

    numbers: list[int] = []
    count: int = 0


@upcast(Page, version=1)
def counted(data: dict[str, Any]) -> dict[str, Any]:
    if 13 in data["numbers"]:
        raise ValueError("unlucky")
    return data | {"count": len(data["numbers"])}


async def test_old_rows_are_brought_up_when_they_are_read(database_url: str, topic_name: str) -> None:
    settings, log = settings_for(database_url, partitions=1), MemoryLog()
    async with running(notebook(settings, topic_name, OldPage), log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "b", 1))
        await until_settled(runtime, "notes")
    platform = notebook(settings, topic_name, Page)
    async with running(platform, log) as runtime:
        async with client(platform) as http:
            assert (await http.get("/state/notes/page/b")).json() == {"numbers": [1], "count": 1}
        await publish(runtime, noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        rows = await fetch(runtime, "select key, data::text, class_version from headrace.state order by key")
        assert [(row["key"], json.loads(row["data"]), row["class_version"]) for row in rows] == [
            ("a", {"numbers": [1, 2], "count": 1}, 2),
            ("b", {"numbers": [1]}, 1),
        ]


async def test_migration_brings_up_every_row_beside_the_service(database_url: str, topic_name: str) -> None:
    """The owner has read some of them before, and loses no event."""
    settings, log = settings_for(database_url, partitions=1), MemoryLog()
    async with running(notebook(settings, topic_name, OldPage), log) as runtime:
        await publish(runtime, *(noted(topic_name, f"page-{number:04}", 1) for number in range(1_200)))
        await publish(runtime, noted(topic_name, "bad", 13))
        await until_settled(runtime, "notes")
    await execute(database_url, "update headrace.state set key = '' where key = 'page-0900'")
    steps: list[tuple[int, int]] = []
    async with running(notebook(settings, topic_name, Page), log) as runtime:
        await publish(runtime, noted(topic_name, "page-0007", 2))
        await until_settled(runtime, "notes")
        assert runtime.pool is not None
        async with runtime.pool.acquire() as connection:
            done = await migrate(
                connection, "notebook.notes", StateType(Page), lambda done, total: steps.append((done, total))
            )
        assert done.rows == 1_199
        assert done.refused == [("bad", "the upcaster of version 1 of Page raised ValueError: unlucky")]
        assert steps[0] == (0, 1_200) and steps[-1] == (1_200, 1_200)
        await publish(runtime, noted(topic_name, "page-0007", 3), noted(topic_name, "page-0008", 2))
        await until_settled(runtime, "notes")
        found = await states(runtime, "notes", "page")
        assert found["page-0007"] == {"numbers": [1, 2, 3], "count": 1}
        assert found["page-0008"] == {"numbers": [1, 2], "count": 1}
        assert found["page-0901"] == found[""] == {"numbers": [1], "count": 1}
