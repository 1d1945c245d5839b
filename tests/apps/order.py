"""A service that keeps the numbers of each key's events in the order in which they were applied.

An event fails its first `failures` runs in this process, so that lanes are always in the mix.
"""

from __future__ import annotations

from collections import Counter

from fastapi import FastAPI
from pydantic import BaseModel

from headrace import Event, Headrace, State
from tests.apps import kind

NAME = kind.name("order")

events = Headrace(NAME)
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)

runs: Counter[tuple[str, int]] = Counter()


class Numbered(Event, type="numbered", topic=NAME, key="key"):
    """One of a key's events; they are numbered without gaps."""

    key: str
    number: int
    failures: int = 0


class Sequence(BaseModel):
    """What was applied: a lost, a doubled and an overtaken event each show."""

    numbers: list[int] = []


sequences = events.subscription("sequences")


@sequences.on(Numbered)
@kind.of_asked_kind
def append(event: Numbered, sequence: State[Sequence]) -> None:
    """Append the number, after as many failures as the event asks for."""
    runs[event.key, event.number] += 1
    sequence.numbers.append(event.number)
    if runs[event.key, event.number] <= event.failures:
        raise ValueError(f"run {runs[event.key, event.number]} of {event.failures} that fail")
