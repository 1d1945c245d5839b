"""Reads twice a second how far the deployment is, beside the load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from headrace.errors import ConfigurationError
from headrace.load.http_client import NoAnswerError
from headrace.load.results import Sample
from headrace.load.target import Progress, Target

PERIOD_SECONDS = 0.5
BEGIN_ATTEMPTS = 10


class Watching:
    """The samples of a run. `counts` returns what the run has accepted, and its sends in flight."""

    def __init__(
        self,
        target: Target,
        subscriptions: tuple[str, ...],
        topics: frozenset[str],
        counts: Callable[[], tuple[int, int]],
    ) -> None:
        self._target = target
        self._subscriptions = subscriptions
        self._topics = topics
        self._counts = counts
        self._began = time.perf_counter()
        self.first: Progress | None = None
        self.last: Progress | None = None
        self.samples: list[Sample] = []

    @property
    def now(self) -> float:
        """Seconds since the begin of the run."""
        return time.perf_counter() - self._began

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            await self.sample()
            await asyncio.sleep(PERIOD_SECONDS)

    async def sample(self) -> Progress | None:
        """Read once; None if the deployment did not say."""
        at = self.now
        try:
            progress = await self._target.progress(self._subscriptions, self._topics)
        except NoAnswerError:
            progress = None
        if progress is not None and not progress.is_known:
            progress = None
        if progress is not None:
            self.first = self.first or progress
            self.last = progress
        accepted, in_flight = self._counts()
        applied = progress.applied - self.first.applied if progress is not None and self.first is not None else None
        lag = progress.lag if progress is not None else None
        self.samples.append(Sample(round(at, 3), accepted, applied, lag, in_flight))
        return progress

    async def begin(self) -> None:
        """Read where the run begins. Raises: ConfigurationError (the deployment does not say how far it is)."""
        for _ in range(BEGIN_ATTEMPTS):
            if await self.sample() is not None:
                return
            await asyncio.sleep(PERIOD_SECONDS)
        names = ", ".join(self._subscriptions)
        raise ConfigurationError(
            f"GET /subscriptions of the deployment does not say how far {names} is, so nothing could be proved; "
            "nothing was sent: look whether its log is connected."
        )

    def between(self, begin: float, end: float) -> list[Sample]:
        """Return the samples of a stretch of the run that know how far the deployment was."""
        return [each for each in self.samples if begin <= each.at_seconds <= end and each.applied is not None]

    async def until_drained(self, seconds: float) -> bool:
        """Wait until every subscription has applied all that the log has; False after the seconds."""
        deadline = self.now + seconds
        while self.now < deadline:
            progress = await self.sample()
            if progress is not None and progress.lag == 0:
                return True
            await asyncio.sleep(PERIOD_SECONDS / 2)
        return False


def applied_per_second(samples: list[Sample]) -> float | None:
    """Return the rate over the samples; None if there are not two of different times."""
    if len(samples) < 2:
        return None
    first, last = samples[0], samples[-1]
    assert first.applied is not None and last.applied is not None
    seconds = last.at_seconds - first.at_seconds
    return (last.applied - first.applied) / seconds if seconds else None
