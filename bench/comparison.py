"""Interleaved runs of several contenders, their medians, and the ratios that matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from bench.contenders import BARE_LOOP, FETCH_ALONE, UPSERT_ALONE, Contender
from bench.measure import Run, measure
from bench.servers import Servers, Topic


async def interleave(
    servers: Servers, pairs: Sequence[tuple[Contender, Topic]], rounds: int, tell: Callable[[str], None]
) -> list[Run]:
    """Return the runs: every contender once a round, in turn, each round beginning with another one."""
    runs = []
    for number in range(rounds):
        first = number % len(pairs)
        for contender, topic in [*pairs[first:], *pairs[:first]]:
            tell(f"round {number + 1} of {rounds}: {contender.label}")
            runs.append(await measure(servers, contender, topic))
    return runs


class Comparison:
    """What the runs of one sitting say."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.contenders = list(dict.fromkeys(run.contender for run in runs))

    def of(self, contender: str) -> list[Run]:
        """Return the contender's runs."""
        return [run for run in self.runs if run.contender == contender]

    def median(self, contender: str, figure: Callable[[Run], float]) -> float:
        """Return the median of a figure over the contender's runs."""
        return median(figure(run) for run in self.of(contender))

    def rate(self, contender: str) -> float:
        """Return the median of events per second."""
        return self.median(contender, lambda run: run.events_per_second)

    def of_bare_loop(self, contender: str) -> float | None:
        """Return the contender's rate as a share of the bare loop's."""
        if BARE_LOOP.name not in self.contenders:
            return None
        return self.rate(contender) / self.rate(BARE_LOOP.name)

    @property
    def harmonic_bound(self) -> float | None:
        """Events per second of a loop that fetches and upserts in turn and does nothing else."""
        halves = (FETCH_ALONE.name, UPSERT_ALONE.name)
        if not set(halves) <= set(self.contenders):
            return None
        return 1 / sum(1 / self.rate(half) for half in halves)

    @property
    def inexact(self) -> list[Run]:
        """The runs that are no result."""
        return [run for run in self.runs if run.fault]
