"""A service with a handler that kills its process: what a crash in native code, or too little memory, looks like."""

from __future__ import annotations

import os

from fastapi import FastAPI
from pydantic import BaseModel

from headrace import Event, Headrace, State
from tests.apps import kind

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
    """Remember the cup; a poisoned one ends the process at once."""
    if event.is_poisoned:
        os._exit(9)
    drinker.cups.append(event.cup)
