"""A probe whose effect is never seen is not left out of what is said about the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from headrace.load.probes import Probes
from headrace.load.sender import Outcome
from headrace.load.target import Target
from headrace.load.workload import Expected, Made, Workload, wallets

GIVE_UP_SECONDS = 0.05


class Blind(Target):
    """Accepts every event and shows the effect of none."""

    def __init__(self) -> None: ...

    async def send(self, events: Sequence[Made]) -> Outcome:
        return Outcome("202", is_accepted=True)

    async def state(self, path: str) -> dict[str, Any] | None:
        return None


async def test_a_probe_that_is_given_up_counts_with_its_wait() -> None:
    target, make = Blind(), Workload("r", wallets(), 10, 1).make_probe
    probes = Probes(target, target, make, lambda key: key, Expected(), GIVE_UP_SECONDS)
    await probes.run([0.0, 0.0], asyncio.Event())
    found = probes.latencies.percentiles()
    assert found.count == 2
    assert found.max is not None and found.max >= GIVE_UP_SECONDS * 1_000
