"""A notebook that takes its events in an order, records with a sequence, and the keys that wait for a missing one."""

from __future__ import annotations

import msgspec

from headrace import Event, Headrace, InSequence, Latest, State
from headrace.log.ports import NewRecord
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.platform import Notes, fetch, noted

LONG = InSequence(wait_seconds=3600)
"""Waits for a missing event longer than any test."""


def ordered(
    settings: Settings, topic: str, order: Latest | InSequence | None, broken: set[int] | None = None
) -> Headrace:
    """Return a service that notes numbers in that order; those of `broken` raise."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    notes = platform.subscription("notes", order=order)

    @notes.on(Noted)
    def note(event: Noted, kept: State[Notes]) -> None:
        if event.number in (broken or ()):
            raise ValueError(f"number {event.number} is broken")
        kept.numbers.append(event.number)

    return platform


def numbered(topic: str, page: str, *numbers: int) -> list[NewRecord]:
    """Return records whose sequence is their number."""
    records = [noted(topic, page, number, id=f"{page}-{number}") for number in numbers]
    return [
        msgspec.structs.replace(each, headers=[*each.headers, ("ce_sequence", str(number).encode())])
        for each, number in zip(records, numbers, strict=True)
    ]


async def held(runtime: Runtime) -> list[str]:
    """Return the keys that wait for a missing event."""
    rows = await fetch(runtime, "select key from headrace.lane where error_type = 'SequenceGapError' order by key")
    return [row["key"].decode() for row in rows]
