"""Events that have a number, and the state that lists the numbers that were applied to an owner."""

from __future__ import annotations

from pydantic import BaseModel

from headrace import Event


class Numbered(Event, type="numbered", topic="numbers", key="owner"):
    """An event that says what its handler does."""

    owner: str
    number: int
    says: str = ""


class Numbers(BaseModel):
    """What was applied to a key."""

    numbers: list[int] = []
