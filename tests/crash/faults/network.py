"""Connections that break, that are slow, and that swallow everything: of one worker to Postgres, of all to Kafka."""

from __future__ import annotations

import asyncio

from tests.crash.history import Fault
from tests.crash.machine import Machine
from tests.crash.plan import Step
from tests.support.link import Link

DELAY_SECONDS = 0.3
SLOW_SECONDS, HOLE_SECONDS = 4.0, (3.0, 12.0)
"""How long it lasts; a session with Kafka is over after 6 s, one that is idle in a transaction after 5 s."""


async def reset_postgres(machine: Machine, step: Step, fault: Fault) -> None:
    """Every connection of one worker to Postgres breaks at once."""
    worker = await machine.pick(owning=True)
    worker.link.reset()
    fault.detail = f"worker {worker.number}"


async def slow_postgres(machine: Machine, step: Step, fault: Fault) -> None:
    """Everything between one worker and Postgres takes longer."""
    worker = await machine.pick(owning=True)
    fault.detail = f"worker {worker.number}"
    await _slow(worker.link)


async def lose_postgres(machine: Machine, step: Step, fault: Fault) -> None:
    """Nothing passes between one worker and Postgres, and nobody is told."""
    worker = await machine.pick(owning=True)
    seconds = machine.chance.uniform(*HOLE_SECONDS)
    fault.detail = f"worker {worker.number}, {seconds:.1f} s"
    await _swallow(worker.link, seconds)


async def reset_kafka(machine: Machine, step: Step, fault: Fault) -> None:
    """Every connection of the workers to one broker breaks at once."""
    machine.chance.choice(machine.cluster.broker_links).reset()


async def slow_kafka(machine: Machine, step: Step, fault: Fault) -> None:
    """Everything between the workers and one broker takes longer."""
    await _slow(machine.chance.choice(machine.cluster.broker_links))


async def lose_kafka(machine: Machine, step: Step, fault: Fault) -> None:
    """Nothing passes between the workers and one broker, and nobody is told."""
    seconds = machine.chance.uniform(*HOLE_SECONDS)
    fault.detail = f"{seconds:.1f} s"
    await _swallow(machine.chance.choice(machine.cluster.broker_links), seconds)


async def _slow(link: Link) -> None:
    link.delay_seconds = DELAY_SECONDS
    try:
        await asyncio.sleep(SLOW_SECONDS)
    finally:
        link.delay_seconds = 0.0


async def _swallow(link: Link, seconds: float) -> None:
    link.is_open = False
    try:
        await asyncio.sleep(seconds)
    finally:
        link.is_open = True
