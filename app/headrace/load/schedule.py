"""When each send of a step is due: fixed before the step begins, whatever the target does."""

from __future__ import annotations

import random
from array import array
from typing import Literal

Arrivals = Literal["constant", "poisson"]


def due_times(arrivals: Arrivals, per_second: float, seconds: float, seed: int) -> array[float]:
    """Return when each send is due, in seconds from the begin of the step, in order.

    `constant` leaves equal gaps. `poisson` draws them, as many independent producers would make them: the same seed
    makes the same schedule.
    """
    if arrivals == "constant":
        return array("d", (number / per_second for number in range(max(1, round(per_second * seconds)))))
    chance = random.Random(seed)  # noqa: S311 - a schedule, not a secret
    times = array("d")
    at = chance.expovariate(per_second)
    while at < seconds:
        times.append(at)
        at += chance.expovariate(per_second)
    return times or array("d", (0.0,))


def step_rates(first: float, growth: float, up_to: float | None) -> list[float]:
    """Return the rates of the steps: the first one alone, or each `growth` times the one before, up to the last."""
    rates = [first]
    while up_to is not None and rates[-1] < up_to:
        rates.append(min(up_to, rates[-1] * growth))
    return rates
