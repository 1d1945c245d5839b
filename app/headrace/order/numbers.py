"""The numbers of parked events in a subscription in sequence: place, whether it is a replay, and the order of arrival.

A lane is read in the order of its numbers, so that the event with the lowest place comes first.
"""

from __future__ import annotations

_BITS = 20
_REPLAY = 1 << (_BITS - 1)
_ARRIVAL = _REPLAY - 1


def number_of(place: int, arrival: int, *, is_replay: bool) -> int:
    """Return the number of a parked event."""
    return place << _BITS | (_REPLAY if is_replay else 0) | (arrival & _ARRIVAL)


def place_in(number: int) -> int:
    """Return the place that a number begins with."""
    return number >> _BITS


def is_replay(number: int) -> bool:
    """True if a person has replayed the dead letter of the event."""
    return bool(number & _REPLAY)


def arrival_of(number: int) -> int:
    """Return the order of arrival that a number ends with."""
    return number & _ARRIVAL
