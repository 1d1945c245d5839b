"""A service with a handler that ends its process: by its death, as in native code or for lack of memory, or for good.

`APP_POISON=block`: it blocks the event loop and never returns, until the supervisor ends the process.
"""

from __future__ import annotations

import os
import time

from fastapi import FastAPI
from pydantic import BaseModel

from headrace import Event, Headrace, State, supervisor
from headrace.telemetry import health
from tests.apps import kind

BLOCKS = os.environ.get("APP_POISON") == "block"

events = Headrace("poison")
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)


class Drunk(Event, type="drunk", topic="cups", key="who"):
    """Somebody empties a cup."""

    who: str
    cup: int
    is_poisoned: bool = False


class Drinker(BaseModel):
    """The cups of one drinker, in order."""

    cups: list[int] = []


drinkers = events.subscription("drinkers")


@drinkers.on(Drunk)
@kind.of_asked_kind
def drink(event: Drunk, drinker: State[Drinker]) -> None:
    """Remember the cup; a poisoned one ends the process."""
    if event.is_poisoned and BLOCKS:
        health.LOOP_SILENT_SECONDS, supervisor.ANSWER_SECONDS = 1.0, 0.5
        time.sleep(600)
    elif event.is_poisoned:
        os._exit(9)
    drinker.cups.append(event.cup)
