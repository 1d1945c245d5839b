"""A service whose states are lists: a lost, a doubled and an overtaken event of a key each show in one value.

What an event does besides, the event itself asks for; so whoever reads the log knows what must have happened.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel

from headrace import Event, Headrace, State
from headrace.handlers.verdicts import DeadLetter
from tests.apps import kind
from tests.crash.points import install

NAME = kind.name("lists")
BLOCK_SECONDS = 0.5
DEATHS = Path(os.environ.get("APP_DEATHS", "deaths"))
"""A folder: a file in it says that an event has ended a process."""

events = Headrace(NAME)
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
install()

runs: Counter[tuple[str, int]] = Counter()


class Noted(Event, type="noted", topic=NAME, key="key"):
    """One of a key's events, numbered from 0 without gaps."""

    key: str
    number: int
    trouble: str = ""
    """`fail`: its first run in a process raises. `reject`: it is given up on. `hang`: its first run in a process never
    returns. `block`: it takes a while. `die`: it ends the first process that runs it."""
    echoes: bool = False


class Echoed(Event, type="echoed", topic=f"{NAME}-echoes", key="key"):
    """What a handler emitted."""

    key: str
    number: int


class Numbers(BaseModel):
    """What was applied to one key, in order."""

    numbers: list[int] = []


lists = events.subscription("lists")
echoes = events.subscription("echoes")


@lists.on(Noted)
@kind.of_asked_kind
def note(event: Noted, kept: State[Numbers]) -> Echoed | None:
    """Append the number, and make the trouble that is asked for."""
    kept.numbers.append(event.number)
    if event.trouble:
        _trouble(event)
    return Echoed(key=event.key, number=event.number) if event.echoes else None


@echoes.on(Echoed)
@kind.of_asked_kind
def hear(event: Echoed, kept: State[Numbers]) -> None:
    """Append the number."""
    kept.numbers.append(event.number)


def _trouble(event: Noted) -> None:
    runs[event.key, event.number] += 1
    is_first = runs[event.key, event.number] == 1
    if event.trouble == "reject":
        raise DeadLetter("as asked")
    if event.trouble == "fail" and is_first:
        raise ValueError("as asked")
    if event.trouble == "hang" and is_first:
        threading.Event().wait(60)
    if event.trouble == "block":
        time.sleep(BLOCK_SECONDS)
    if event.trouble == "die":
        _die_once(DEATHS / f"{event.key}-{event.number}")


def _die_once(file: Path) -> None:
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return
    os._exit(9)
