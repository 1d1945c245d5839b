"""`headrace rebuild` builds a projection again while another process serves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.loading import find_platform, load_app
from tests.support.command import headrace
from tests.support.kafka import KafkaServer
from tests.support.platform import fetch, running, settings_for, until_settled

APP = """
from fastapi import FastAPI
from headrace import Event, Headrace, Table
from pydantic import BaseModel

events = Headrace("small")

class Named(Event, type="named", topic="{topic}", key="id"):
    id: str
    name: str

class Row(BaseModel):
    id: str
    name: str

names = events.projection("names", Row, key="id")

@names.on(Named)
def note(event: Named, rows: Table[Row]) -> None:
    rows.put(Row(id=event.id, name=event.name))

app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
app.include_router(names.router("/names"))
"""


async def test_rows_are_what_their_events_say_again(
    database_url: str, kafka: KafkaServer, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has spoilt them by hand."""
    (tmp_path / "named.py").write_text(APP.format(topic=topic_name))
    monkeypatch.syspath_prepend(tmp_path)
    platform = find_platform(load_app("named:app"))
    monkeypatch.setattr(platform, "_settings", settings_for(database_url, kafka.url))
    settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url}
    model = platform.registry.subscriptions["names"].event_types["named"].model
    async with running(platform) as runtime:
        await platform.publish([model(id=str(number), name=f"name {number}") for number in range(50)])
        await until_settled(runtime, "names")
        assert runtime.pool is not None
        await runtime.pool.execute("update projections.names set name = 'spoilt'")
        said = await headrace(tmp_path, "rebuild", "named:app", "names", settings=settings)
        assert (said.code, said.out.partition(" in ")[0]) == (0, "names: 50 rows of 50 events"), said.err
        rows = await fetch(runtime, "select id, name from projections.names")
        assert {row["id"]: row["name"] for row in rows} == {str(number): f"name {number}" for number in range(50)}
        said = await headrace(tmp_path, "rebuild", "named:app", "others", settings=settings)
        assert said.code == 1
        assert "named:app declares no projection 'others'; it declares: names." in said.err
