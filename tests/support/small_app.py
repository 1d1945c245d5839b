"""A small service of its own topic, for tests of the command line."""

from __future__ import annotations

from pathlib import Path

from tests.support.service import Service
from tests.support.web import http_client

APP = """
import threading
from pathlib import Path
from fastapi import FastAPI
from headrace import Event, Headrace, State
from pydantic import BaseModel

events = Headrace("small")
things = events.subscription("things")

class Thing(Event, type="thing.made", topic="{topic}", key="name"):
    name: str

class Seen(BaseModel):
    count: int = 0

@things.on(Thing)
def take(event: Thing, seen: State[Seen]) -> None:
    if event.name == "endless":
        Path("began").touch()
        threading.Event().wait()
    if event.name == "picky" and not Path("mended").exists():
        raise ValueError("not \\x1b[31myet")
    seen.count += 1

app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
"""


def write_small_app(folder: Path, topic: str) -> str:
    """Write the application `small.py`, whose one event type lives on the topic; return its MODULE:APP."""
    (folder / "small.py").write_text(APP.format(topic=topic))
    return "small:app"


async def publish(service: Service, name: str, **headers: str) -> None:
    """Publish one event of it: `endless` never ends, `picky` fails until the file `mended` exists."""
    async with http_client() as client:
        answer = await client.post(f"{service.url}/events/thing.made", json={"name": name}, headers=headers, timeout=20)
    assert answer.status_code == 202, answer.text
