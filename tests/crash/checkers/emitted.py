"""I4: an event is emitted if and only if the one that it comes from was applied, and under one id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.crash.checkers.violation import Violation
from tests.crash.evidence import Evidence
from tests.crash.plan import PUT_BACK
from tests.crash.streams import Keys


def check_emitted(evidence: Evidence) -> Iterator[Violation]:
    """Emits at once, timers, windows, and what effects emit when their call is done."""
    asked, by_type = evidence.streams.asked, evidence.streams.by_type
    yield from _compare("echoed", asked["echoes"], by_type["echoed"].there)
    yield from _compare("reminded", asked["reminds"], by_type["reminded"].there)
    yield from _compare("told", asked["tells"], by_type["told"].there)
    yield from _compare("windowed", asked["echoes"], by_type["windowed"].there)
    yield from _compare("mailed", asked["tells"], by_type["mailed"].there)
    is_put_back = any(fault.kind == PUT_BACK for fault in evidence.history.faults)
    for type_, stream in by_type.items():
        if type_.endswith(".window_ended") or (type_ == "windowed" and is_put_back):
            continue  # it has no number; another event may close the window in the second future
        for key, number in stream.second_ids[:3]:
            yield Violation("I4", f"{type_} {key}/{number} is in the log under two ids")


def check_bookings(evidence: Evidence) -> Iterator[Violation]:
    """What a route has written and what it has emitted are the same, in the same order."""
    there = evidence.streams.by_type["booked"].numbers
    for account in evidence.bookings.keys() | there.keys():
        booked, emitted = evidence.bookings.get(account, []), list(there.get(account, []))
        if booked != emitted or booked != list(range(1, len(booked) + 1)):
            yield Violation("I4", f"{account} has the bookings {booked[:70]}, and emitted {emitted[:70]}")
    booked_rows, answered = sum(map(len, evidence.bookings.values())), evidence.history.sent.booked
    if booked_rows < answered:
        yield Violation("I1", f"{answered} bookings were answered, and {booked_rows} are there")


def _compare(type_: str, wanted: Mapping[str, int], found: Mapping[str, int]) -> Iterator[Violation]:
    for key in wanted.keys() | found.keys():
        missing, strange = Keys(), Keys()
        missing[key] = wanted.get(key, 0) & ~found.get(key, 0)
        strange[key] = found.get(key, 0) & ~wanted.get(key, 0)
        for _, number in missing.each():
            yield Violation("I4", f"{type_} {key}/{number} was to be emitted, and is not in the log")
        for _, number in strange.each():
            yield Violation("I4", f"{type_} {key}/{number} was emitted by nothing that is applied")
