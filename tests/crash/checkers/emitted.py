"""I4: an event is emitted if and only if the one that it comes from was applied, and under one id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from tests.apps.lists_numbers import HEARD, REMIND_SECONDS
from tests.crash.checkers.violation import Violation
from tests.crash.evidence import Evidence
from tests.crash.streams import Keys

CLOCK_SECONDS = 0.02
"""By which clocks on one machine may differ."""


def check_emitted(evidence: Evidence) -> Iterator[Violation]:
    """Emits at once, timers, windows, and what effects emit when their call is done."""
    asked, by_type = evidence.streams.asked, evidence.streams.by_type
    yield from _compare("echoed", asked["echoes"], by_type["echoed"].there)
    yield from _compare("reminded", asked["reminds"], by_type["reminded"].there)
    yield from _compare("told", asked["tells"], by_type["told"].there)
    yield from _compare("windowed", asked["echoes"], by_type["windowed"].there)
    yield from _compare("mailed", asked["tells"], by_type["mailed"].there)
    yield from _compare("heard", _heard(by_type["echoed"].there), by_type["heard"].there)
    for type_, stream in by_type.items():
        if type_.endswith(".window_ended") or (type_ == "windowed" and evidence.is_put_back):
            continue  # it has no number; another event may close the window in the second future
        for key, number in stream.second_ids[:3]:
            yield Violation("I4", f"{type_} {key}/{number} is in the log under two ids")


def check_commits(evidence: Evidence) -> Iterator[Violation]:
    """I4: an emit is committed once, and is not in the log before the transaction of its event, or its timer is due."""
    count = Counter(event_id for row in evidence.ledger for event_id in row.emitted)
    for event_id, times in count.items():
        if times > 1:
            yield Violation("I4", f"the emit {event_id} is committed {times} times")
    if evidence.is_put_back:
        return  # what a lost future has emitted stays in the log
    for type_, seconds in (("echoed", 0.0), ("reminded", REMIND_SECONDS)):
        for (key, number), at in evidence.streams.published[type_].items():
            if (position := evidence.streams.places.get(("noted", key, number))) is not None:
                due_at = evidence.began("lists", position) + seconds
                if at < due_at - CLOCK_SECONDS:
                    yield Violation("I4", f"{type_} {key}/{number} was published {due_at - at:.2f} s too early")


def check_windows(evidence: Evidence) -> Iterator[Violation]:
    """I2: a window closes once, with all that it has."""
    if evidence.is_put_back:
        return  # another event may close it in the second future
    for (key, start), closed in evidence.streams.closed.items():
        if closed.counts != {len(closed.numbers)}:
            yield Violation(
                "I2",
                f"the window {start} of {key} has come to {sorted(closed.numbers)}, "
                f"and was closed with so many: {sorted(closed.counts)}",
            )


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


def _heard(echoed: Mapping[str, int]) -> Keys:
    """Return the echoes of which the handler of lists emits something."""
    heard = Keys()
    for key, numbers in echoed.items():
        for number in range(0, numbers.bit_length(), HEARD):
            if numbers >> number & 1:
                heard.take(key, number)
    return heard


def _compare(type_: str, wanted: Mapping[str, int], found: Mapping[str, int]) -> Iterator[Violation]:
    for key in wanted.keys() | found.keys():
        missing, strange = Keys(), Keys()
        missing[key] = wanted.get(key, 0) & ~found.get(key, 0)
        strange[key] = found.get(key, 0) & ~wanted.get(key, 0)
        for _, number in missing.each():
            yield Violation("I4", f"{type_} {key}/{number} was to be emitted, and is not in the log")
        for _, number in strange.each():
            yield Violation("I4", f"{type_} {key}/{number} was emitted by nothing that is applied")
