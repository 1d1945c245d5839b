"""Interleaved runs of several contenders, their medians, and the ratios that matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from bench.contenders import (
    BARE_LOOP,
    FASTSTREAM_BATCH,
    FASTSTREAM_CONCURRENT,
    FASTSTREAM_IN_ORDER,
    FETCH_ALONE,
    HEADRACE_SQL,
    MSGSPEC,
    PYDANTIC,
    SLOW_ROUNDS,
    SQLALCHEMY_ORM,
    SQLALCHEMY_UPSERT,
    UPSERT_ALONE,
    Contender,
)
from bench.measure import Run, measure
from bench.servers import Servers, Topic


async def interleave(
    servers: Servers,
    contenders: Sequence[Contender],
    topics: Mapping[int | None, Topic],
    rounds: int,
    tell: Callable[[str], None],
) -> list[Run]:
    """Return the runs: every contender once a round, in turn, each round beginning with another one."""
    runs = []
    for number in range(rounds):
        turn = [each for each in contenders if number < SLOW_ROUNDS or not each.is_slow]
        first = number % len(turn) if turn else 0
        for contender in [*turn[first:], *turn[:first]]:
            tell(f"round {number + 1} of {rounds}: {contender.label}")
            runs.append(await measure(servers, contender, topics[contender.most_events]))
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

    def ratio(self, contender: str, other: str) -> float | None:
        """Return the contender's rate by the other's; None if one of them was not measured."""
        if not {contender, other} <= set(self.contenders):
            return None
        return self.rate(contender) / self.rate(other)

    @property
    def harmonic_bound(self) -> float | None:
        """Events per second of a loop that fetches and upserts in turn and does nothing else."""
        halves = (FETCH_ALONE.name, UPSERT_ALONE.name)
        if not set(halves) <= set(self.contenders):
            return None
        return 1 / sum(1 / self.rate(half) for half in halves)

    @property
    def ratios(self) -> dict[str, float]:
        """Return the ratios that the project has goals for, each by a sentence."""
        found: dict[str, float] = {}
        for contender in (PYDANTIC, MSGSPEC):
            for other in (BARE_LOOP, FASTSTREAM_BATCH, FASTSTREAM_CONCURRENT, FASTSTREAM_IN_ORDER, SQLALCHEMY_ORM):
                if (ratio := self.ratio(contender.name, other.name)) is not None:
                    found[f"{contender.label} : {other.label}"] = ratio
            if self.harmonic_bound is not None and contender.name in self.contenders:
                found[f"{contender.label} : harmonic bound"] = self.rate(contender.name) / self.harmonic_bound
        if (ratio := self.ratio(HEADRACE_SQL.name, SQLALCHEMY_UPSERT.name)) is not None:
            found[f"{HEADRACE_SQL.label} : {SQLALCHEMY_UPSERT.label}"] = ratio
        return found

    @property
    def faults(self) -> list[str]:
        """What was wrong in runs that are no result."""
        return [f"{run.contender}: {run.fault}" for run in self.runs if run.fault]
