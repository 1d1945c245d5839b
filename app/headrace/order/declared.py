"""What a team declares: `Latest` or `InSequence`, as `order` of a subscription."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from headrace.durations import is_duration
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError, SchemaError
from headrace.event import EventType

Number: TypeAlias = Callable[[Any], int]
"""A function of the event that returns its place, a whole number from 0 on."""

DIGITS = 18
LARGEST = 2**43 - 1
"""The largest place of `InSequence`: the number of a parked event holds it, and 20 bits more."""
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


@dataclass(frozen=True)
class Latest:
    """Skip an event as stale if a later one of its type and key was applied before.

    `by` tells what is later: the `sequence` or the `time` of the event's envelope, or a function of the event that
    returns a whole number, such as a version.
    """

    by: Literal["sequence", "time"] | Number = "sequence"


@dataclass(frozen=True)
class InSequence:
    """Apply the events of a key by their numbers: 1, 2, 3. One that comes too early is held, a late one skipped.

    `by` is the `sequence` of the envelope, or a function of the event that returns its number. `first` is the number
    that a key begins with; None: whatever comes first. An event is held until those before it have been applied, or
    have been missing for `wait_seconds`. Then, as `at_end` says, the key goes on without the missing ones, or what
    waits for them becomes dead letters.
    """

    by: Literal["sequence"] | Number = "sequence"
    first: int | None = 1
    wait_seconds: float = 60.0
    at_end: Literal["go_on", "dead_letter"] = "go_on"


Order: TypeAlias = Latest | InSequence


def check_order(order: Any, where: str) -> None:
    """Refuse what is no order. Raises: ConfigurationError that says what is valid."""
    if not isinstance(order, (Latest, InSequence)):
        raise ConfigurationError(f'{where}: order={order!r} is wrong; it is Latest(by="time") or InSequence().')
    known = ("sequence", "time") if isinstance(order, Latest) else ("sequence",)
    if order.by not in known and not callable(order.by):
        shown = " or ".join(map(repr, known))
        raise ConfigurationError(f"{where}: by={order.by!r} is wrong; it is {shown}, or a function of the event.")
    if isinstance(order, Latest):
        return
    if order.first is not None and (type(order.first) is not int or not 0 <= order.first <= LARGEST):
        raise ConfigurationError(f"{where}: first={order.first!r} is wrong; it is a number from 0 on, or None.")
    if not is_duration(order.wait_seconds):
        raise ConfigurationError(
            f"{where}: wait_seconds={order.wait_seconds!r} is wrong; it is a number of seconds above 0, up to a "
            "hundred years."
        )
    if order.at_end not in ("go_on", "dead_letter"):
        raise ConfigurationError(f"{where}: at_end={order.at_end!r} is wrong; it is 'go_on' or 'dead_letter'.")


def gives_up(order: Order) -> bool:
    """True if all that waits for a gap is given up on when the wait is over; else its first event runs."""
    return isinstance(order, InSequence) and order.at_end == "dead_letter"


def shown_order(order: Order | None) -> str | None:
    """Return what a person is shown of an order."""
    if order is None:
        return None
    by = order.by if isinstance(order.by, str) else getattr(order.by, "__qualname__", "a function")
    if isinstance(order, Latest):
        return f"the latest by {by}"
    end = "goes on" if order.at_end == "go_on" else "gives up what waited"
    first = "" if order.first is None else f" from {order.first} on"
    return f"in sequence by {by}{first}; waits {order.wait_seconds:g} s for a missing event, then {end}"


def place_of(order: Order, event_type: EventType, envelope: Envelope, event: Any) -> int | None:
    """Return the place of an event in the order of its key; None for an internal type, which has none.

    Raises: SchemaError (it has no place, or one that is no number), and what the team's function raises.
    """
    if event_type.is_internal:
        return None
    if order.by == "time":
        if envelope.time is None:
            raise SchemaError(f"{event_type.type}: the event has no time, which its order is kept by.")
        return (envelope.time - _EPOCH) // _MICROSECOND
    if order.by == "sequence":
        return _checked(order, event_type, _number(event_type, envelope.sequence))
    assert callable(order.by)
    return _checked(order, event_type, order.by(event))


def _number(event_type: EventType, sequence: str | None) -> int:
    """Return a sequence as the number that it is."""
    if sequence is None:
        raise SchemaError(f"{event_type.type}: the event has no sequence, which its order is kept by.")
    if not (sequence.isascii() and sequence.isdigit() and len(sequence) <= DIGITS):
        raise SchemaError(
            f"{event_type.type}: the sequence {sequence[:40]!r} is no number of 1 to {DIGITS} digits, so nobody can "
            "tell what follows it."
        )
    return int(sequence)


def _checked(order: Order, event_type: EventType, place: object) -> int:
    most = LARGEST if isinstance(order, InSequence) else 2**63 - 1
    if type(place) is not int or not 0 <= place <= most:
        raise SchemaError(
            f"{event_type.type}: {place!r} is no place in an order; it is a whole number from 0 to {most}."
        )
    return place
