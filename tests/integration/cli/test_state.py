"""`headrace state`: a person counts, reads, writes and deletes what is kept, beside a running service."""

from __future__ import annotations

import json
from pathlib import Path

from headrace import Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.settings import Settings
from headrace.state.hand import Act, Place, change
from tests.support.command import Said, headrace
from tests.support.platform import (
    Notes,
    execute,
    fetch,
    pages,
    publish,
    record,
    running,
    settings_for,
    until_settled,
)

MODULE = """
from fastapi import FastAPI
from headrace import Event, Headrace, State
from pydantic import BaseModel

events = Headrace("notebook")
app = FastAPI(lifespan=events.lifespan)

class Noted(Event, type="noted", topic="pages", key="page"):
    page: str
    number: int

class Notes(BaseModel):
    numbers: list[int] = []

@events.subscription("notes").on(Noted)
def note(event: Noted, notes: State[Notes]) -> None:
    notes.numbers.append(event.number)
"""


class Noted(Event, type="noted", topic="pages", key="page"):
    page: str
    number: int


def notebook(settings: Settings) -> Headrace:
    platform = Headrace("notebook", settings)

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, notes: State[Notes]) -> None:
        notes.numbers.append(event.number)

    return platform


def noted(page: str, number: int) -> NewRecord:
    return record("pages", "noted", {"page": page, "number": number}, key=page)


async def test_state_is_changed_beside_its_owner(tmp_path: Path, database_url: str) -> None:
    """The owner keeps it in memory, and goes on with what a person has written; each change is noted."""
    (tmp_path / "notebook_app.py").write_text(MODULE)
    settings = {"HEADRACE_DATABASE": database_url}

    async def state(*words: str) -> Said:
        return await headrace(tmp_path, "state", *words, settings=settings)

    async with running(notebook(settings_for(database_url)), MemoryLog()) as runtime:
        await publish(runtime, *(noted(page, 1) for page in ("a", "b", "c")))
        await until_settled(runtime, "notes")
        counted = await state("list", "--json")
        assert [(each["subscription"], each["state"], each["keys"]) for each in json.loads(counted.out)] == [
            ("notebook.notes", "notes", 3)
        ]
        listed = await state("list", "notebook.notes", "notes", "--after", "a", "--json")
        assert [each["key"] for each in json.loads(listed.out)] == ["b", "c"]

        new = '{"numbers": [7]}'
        put = await state("put", "notebook_app:app", "notes", "notes", "a", new, "--why", "a slip of the pen")
        assert (put.code, put.out) == (0, "notebook.notes notes a is at version 2\n"), put.err
        deleted = await state("delete", "notebook.notes", "notes", "b", "--yes")
        assert deleted.code == 0, deleted.err
        await publish(runtime, *(noted(page, 2) for page in ("a", "b", "c")))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [7, 2], "b": [2], "c": [1, 2]}

        shown = await state("show", "notebook.notes", "notes", "a")
        first, second = shown.out.splitlines()
        assert json.loads(first) == {"numbers": [7, 2]}
        assert "put by" in second and "a slip of the pen; it was" in second and "[1]" in second
        (row,) = await fetch(runtime, "select before, after, why from headrace.state_change where action = 'delete'")
        assert (json.loads(row["before"]), row["after"], row["why"]) == ({"numbers": [1]}, None, None)


async def test_wrong_changes_are_refused(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "notebook_app.py").write_text(MODULE)
    settings = {"HEADRACE_DATABASE": database_url}
    wrong = await headrace(
        tmp_path, "state", "put", "notebook_app:app", "notes", "notes", "a", '{"numbers": ["x"]}', settings=settings
    )
    assert wrong.code == 1 and "it is no Notes: " in wrong.err
    nobody = await headrace(tmp_path, "state", "put", "notebook_app:app", "notes", "page", "a", "{}", settings=settings)
    assert "declares no state notes page; it declares: notes notes." in nobody.err
    unread = await headrace(
        tmp_path, "state", "put", "notebook_app:app", "notes", "notes", "a", "{}", settings=settings
    )
    assert "the subscription notebook.notes has never run here" in unread.err
    missing = await headrace(tmp_path, "state", "delete", "notebook.notes", "notes", "a", "--yes", settings=settings)
    saga = await headrace(tmp_path, "state", "delete", "a.b", "headracesaga", "a", "--yes", settings=settings)
    assert saga.code == 1 and "the state of a saga follows from its events" in saga.err
    assert missing.code == 1 and "notebook.notes has no state 'notes' of the key 'a'." in missing.err


async def test_batch_that_has_read_the_state_cannot_undo_a_deletion(database_url: str) -> None:
    """Its write would make the row again: the claim's token is gone, and the batch is done again on what is there."""
    async with running(notebook(settings_for(database_url, partitions=1)), MemoryLog()) as runtime:
        await publish(runtime, noted("a", 1))
        await until_settled(runtime, "notes")
        assert runtime.pool is not None
        for number in range(2, 6):
            async with runtime.pool.acquire() as connection:
                await change(connection, Place("notebook.notes", "notes", "a"), None, Act("somebody", None))
            await publish(runtime, noted("a", number))
            await until_settled(runtime, "notes")
            assert await pages(runtime) == {"a": [number]}


async def test_doctor_names_states_without_a_class(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "notebook_app.py").write_text(MODULE)
    await execute(database_url, "insert into headrace.state values ('notebook.notes', 'gone', 'a', 0, 1, '{}')")
    settings = {"HEADRACE_DATABASE": database_url}
    said = await headrace(tmp_path, "doctor", "notebook_app:app", "--json", settings=settings)
    (check,) = [each for each in json.loads(said.out) if each["name"] == "state gone of notes"]
    assert check["state"] == "warn" and "if its class was renamed" in check["advice"]
