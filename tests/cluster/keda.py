"""KEDA's rule for a Kafka trigger and the HorizontalPodAutoscaler's behaviour behind it, as far as the chart uses them.

KEDA reads the lag of the group, holds it to what the partitions can make use of, and gives it to a
HorizontalPodAutoscaler as an external metric with an average value per pod. Where the cluster has no KEDA, the test
plays its part.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

TOLERANCE = 0.1
"""The HorizontalPodAutoscaler leaves the number alone while it is this near to the wanted one."""


class Behaviour(NamedTuple):
    """What `keda` in the chart's values says, with its defaults but for times that a test can wait for."""

    lag_per_replica: int
    smallest: int = 1
    largest: int = 6
    down_stable_seconds: float = 20.0
    """Chart: 600."""
    down_seconds: float = 10.0
    """One pod less at most every so many seconds. Chart: 120."""
    up_seconds: float = 5.0
    """Twice as many at most every so many seconds. Chart: 60."""


class Scaler:
    """Tells from the lag how many pods there have to be."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._wanted: deque[tuple[float, int]] = deque()
        self._changed_at = -math.inf

    def replicas(self, now: float, current: int, lag: int, partitions: int) -> int:
        """Return the number of pods from now on."""
        behaviour = self._behaviour
        useful = min(lag, partitions * behaviour.lag_per_replica)
        wanted = max(math.ceil(useful / behaviour.lag_per_replica), behaviour.smallest)
        if abs(useful / (current * behaviour.lag_per_replica) - 1) <= TOLERANCE:
            wanted = current
        wanted = min(wanted, behaviour.largest)
        self._wanted.append((now, wanted))
        while self._wanted[0][0] < now - behaviour.down_stable_seconds:
            self._wanted.popleft()
        if wanted > current and now - self._changed_at >= behaviour.up_seconds:
            return self._change(now, min(wanted, 2 * current))
        stable = max(number for _, number in self._wanted)
        if stable < current and now - self._changed_at >= behaviour.down_seconds:
            return self._change(now, current - 1)
        return current

    def _change(self, now: float, replicas: int) -> int:
        self._changed_at = now
        return replicas
