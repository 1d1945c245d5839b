"""Processes that die, and processes that are frozen until others have taken what they hold."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

from tests.crash.cluster import Worker
from tests.crash.history import Fault
from tests.crash.machine import Machine
from tests.crash.plan import Step
from tests.crash.points import POINTS, Needs, arm, disarm, hit_file
from tests.support.waiting import until

POINT_SECONDS = 15.0
"""Within which a process has to come to a point; else the fault found nothing to hit."""
ASKED_FOR = 20
"""Events that ask for what brings a process to a point."""
CROWD, CROWD_SECONDS = 5, (15.0, 40.0)
"""Processes for each processor that have nothing to wait for, and for how long."""
ZOMBIE_SECONDS = 8.0
"""For which the refusals of a process that goes on are counted, unless it ends or claims again before."""


async def kill(machine: Machine, step: Step, fault: Fault) -> None:
    """End one process with -9, wherever it is."""
    worker = await machine.pick()
    async with worker.busy:
        fault.detail = f"worker {worker.number}"
        await worker.service.kill()
        await worker.restart()


async def leave(machine: Machine, step: Step, fault: Fault) -> None:
    """Ask one process to end, as a roll-out does."""
    worker = await machine.pick()
    async with worker.busy:
        code = await leave_in_time(worker)
        fault.detail = f"worker {worker.number}, exit code {code}"
        await worker.restart()


async def die_at_point(machine: Machine, step: Step, fault: Fault) -> None:
    """End with -9 the first process that comes to the point."""
    workers = machine.cluster.workers
    for worker in workers:
        arm(worker.point, step.point, "kill")
    try:
        await provoke(machine, POINTS[step.point].needs)
        with suppress(TimeoutError):
            await until(lambda: any(hit_file(each.point).exists() for each in workers), step.point, POINT_SECONDS)
    finally:
        died = [worker.number for worker in workers if not disarm(worker.point)]
    fault.is_done = bool(died)
    fault.detail = f"workers {died}" if died else "no process came there"


async def freeze(machine: Machine, step: Step, fault: Fault) -> None:
    """Stop one process in its tracks until others hold its claims; then it goes on."""
    worker = await machine.pick(owning=True)
    async with worker.busy:
        worker.freeze()
        await wake_as_zombie(machine, worker, fault)


async def freeze_at_point(machine: Machine, step: Step, fault: Fault) -> None:
    """Stop the first process that comes to the point, until others hold its claims; then it goes on."""
    worker = await machine.pick(owning=True)
    async with worker.busy:
        arm(worker.point, step.point, "stop")
        await provoke(machine, POINTS[step.point].needs, worker)
        with suppress(TimeoutError):
            await until(hit_file(worker.point).exists, step.point, POINT_SECONDS)
        fault.is_done = not disarm(worker.point)
        if fault.is_done:
            worker.is_frozen = True
            await wake_as_zombie(machine, worker, fault)
        else:
            fault.detail = f"worker {worker.number} did not come there"


async def crowd(machine: Machine, step: Step, fault: Fault) -> None:
    """Others want the processors as well, also while the next faults happen: whatever takes a moment takes long."""
    count, seconds = CROWD * (os.cpu_count() or 1), machine.chance.uniform(*CROWD_SECONDS)
    code = f"import time; end = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    for _ in range(count):
        machine.crowd.append(await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", code))
    fault.detail = f"{count} processes, {seconds:.0f} s"


async def wake_as_zombie(machine: Machine, worker: Worker, fault: Fault) -> None:
    """Let a frozen process go on when it owns nothing any more, and count the statements of it that were refused."""
    try:
        await machine.until_disowned(worker)
    finally:
        machine.watch.read_log()
        before = len(machine.history.refusals)
        worker.thaw()

    def refused() -> int:
        machine.watch.read_log()
        return sum(refusal.writer == worker.pid for refusal in machine.history.refusals[before:])

    async def is_over() -> bool:
        return not worker.service.is_running or await machine.owns(worker) > 0

    with suppress(TimeoutError):
        await until(is_over, "it has claimed again", ZOMBIE_SECONDS)
    fault.zombies = refused()
    fault.detail = f"worker {worker.number}"


async def leave_in_time(worker: Worker) -> int:
    """Ask a process to end; return its exit code. Raises: TimeoutError (it does not end)."""
    try:
        return await worker.service.leave()
    except TimeoutError:
        raise TimeoutError(f"worker {worker.number} did not end within 60 s of being asked to") from None


async def provoke(machine: Machine, needs: Needs, worker: Worker | None = None) -> None:
    """Make the worker, or one of them, come to a point that it does not pass with each batch."""
    if needs == "releases":
        if worker is not None:
            os.kill(worker.pid, signal.SIGTERM)
        else:
            leaver = await machine.pick()
            async with leaver.busy:
                await leave_in_time(leaver)
                await leaver.restart()
    elif needs == "claims":
        killed = await machine.pick()
        async with killed.busy:
            await killed.service.kill()
            await killed.restart()
    elif needs:
        machine.load.asked.extend([needs] * ASKED_FOR)
