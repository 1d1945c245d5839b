"""`headrace state migrate`: brings the rows of a class up to its version, and names those that stay."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command import headrace
from tests.support.platform import execute

MODULE = """
from fastapi import FastAPI
from headrace import Event, Headrace, State, keep, upcast
from pydantic import BaseModel

events = Headrace("notebook")
app = FastAPI(lifespan=events.lifespan)

class Noted(Event, type="noted", topic="pages", key="page"):
    page: str

@keep(version=2)
class Notes(BaseModel):
    count: int = 0

@upcast(Notes, version=1)
def counted(data):
    return {"count": len(data["numbers"])}

@events.subscription("notes").on(Noted)
def note(event: Noted, notes: State[Notes]) -> None:
    notes.count += 1
"""

INSERT = (
    "insert into headrace.state (subscription, state, key, partition, version, data) values "
    "('notebook.notes', 'notes', 'a', 0, 1, '{\"numbers\": [1, 2]}'), ('notebook.notes', 'notes', 'b', 0, 1, '{}')"
)


async def test_rows_are_migrated_and_those_that_stay_are_named(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "notebook_app.py").write_text(MODULE)
    settings = {"HEADRACE_DATABASE": database_url}
    await headrace(tmp_path, "migrate", settings=settings)
    await execute(database_url, INSERT)
    done = await headrace(tmp_path, "state", "migrate", "notebook_app:app", settings=settings)
    assert done.code == 1
    assert "notebook.notes notes: 1 row migrated" in done.out
    assert "b: the upcaster of version 1 of Notes raised KeyError: 'numbers'" in done.out
    assert "1 row stayed as before" in done.out
    listed = await headrace(tmp_path, "state", "list", "notebook.notes", "notes", "--json", settings=settings)
    assert [(each["key"], json.loads(each["data"])) for each in json.loads(listed.out)] == [
        ("a", {"count": 2}),
        ("b", {}),
    ]
    await execute(database_url, "delete from headrace.state where key = 'b'")
    again = await headrace(tmp_path, "state", "migrate", "notebook_app:app", "notes", settings=settings)
    assert (again.code, again.out) == (0, "notebook.notes notes: 0 rows migrated\n")
    wrong = await headrace(tmp_path, "state", "migrate", "notebook_app:app", "pages", settings=settings)
    assert wrong.code == 1 and "declares no subscription 'pages'; it declares: notes." in wrong.err
