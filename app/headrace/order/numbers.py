"""The numbers of parked events in a subscription in sequence: place, whether it is a replay, and the order of arrival.

A lane is read in the order of its numbers, so that the event with the lowest place comes first.
"""

from __future__ import annotations

from headrace.order.declared import LARGEST

_BITS = 20
_REPLAY = 1 << (_BITS - 1)
_ARRIVAL = _REPLAY - 1


def number_of(place: int, arrival: int, *, is_replay: bool) -> int:
    """Return the number of a parked event."""
    return place << _BITS | (_REPLAY if is_replay else 0) | (arrival & _ARRIVAL)


def behind(number: int) -> int:
    """Return the lowest place of which a later arrival is numbered behind an event."""
    return min(place_in(number) + is_replay(number), LARGEST)


def place_in(number: int) -> int:
    """Return the place that a number begins with."""
    return number >> _BITS


def is_replay(number: int) -> bool:
    """True if a person has replayed the dead letter of the event."""
    return bool(number & _REPLAY)
