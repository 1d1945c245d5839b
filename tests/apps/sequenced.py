"""A service that keeps the numbers of each key's events: one subscription in sequence, one that takes the latest."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

from headrace import Event, Headrace, InSequence, Latest, State
from tests.apps import kind

NAME = kind.name("sequenced")

events = Headrace(NAME)
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)


class Numbered(Event, type="numbered", topic=NAME, key="key"):
    """One of a key's events; their `sequence` is their number."""

    key: str
    number: int


class Sequence(BaseModel):
    """What was applied in sequence."""

    numbers: list[int] = []


class Newest(BaseModel):
    """What was applied of the latest."""

    numbers: list[int] = []


sequences = events.subscription("sequences", order=InSequence(wait_seconds=600))
newest = events.subscription("newest", order=Latest())


@sequences.on(Numbered)
@kind.of_asked_kind
def append(event: Numbered, sequence: State[Sequence]) -> None:
    """Append the number."""
    sequence.numbers.append(event.number)


@newest.on(Numbered)
@kind.of_asked_kind
def replace(event: Numbered, kept: State[Newest]) -> None:
    """Append the number, if it is later than the ones before."""
    kept.numbers.append(event.number)
