"""How long a duration may be that a team names."""

from __future__ import annotations

LONGEST_SECONDS = 100 * 366 * 86_400.0
"""A hundred years: what Postgres can add to its clock, and more than anybody means."""


def is_duration(value: object) -> bool:
    """True for a number of seconds above 0, up to a hundred years."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_SECONDS
