"""What can happen in COMMIT, the one statement whose outcome a lost answer leaves unknown."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.crash.cluster import Worker
from tests.crash.faults.processes import ZOMBIE_SECONDS, wake_as_zombie
from tests.crash.history import Fault
from tests.crash.machine import Machine
from tests.crash.plan import Step
from tests.support.link import Connection
from tests.support.waiting import until

COMMIT_SECONDS = 15.0
"""Within which a worker has to commit something; else the fault found nothing to hit."""

Meddle = Callable[[Worker, Connection, bytes], Awaitable[bool]]


async def lose_answer(machine: Machine, step: Step, fault: Fault) -> None:
    """The server commits, and its answer is lost with the connection."""
    await _meddle(machine, fault, _drop_answer)


async def lose_commit(machine: Machine, step: Step, fault: Fault) -> None:
    """The connection breaks before COMMIT reaches the server."""
    await _meddle(machine, fault, _drop_commit)


async def die_in_commit(machine: Machine, step: Step, fault: Fault) -> None:
    """The process dies when its COMMIT is on its way; the server commits."""
    await _meddle(machine, fault, _kill)


async def freeze_in_commit(machine: Machine, step: Step, fault: Fault) -> None:
    """The process is frozen when its COMMIT is on its way; the server commits, and nobody hears of it for long."""
    worker = await _meddle(machine, fault, _freeze, is_over=False)
    if worker is not None:
        async with worker.busy:
            await wake_as_zombie(machine, worker, fault)


async def freeze_before_commit(machine: Machine, step: Step, fault: Fault) -> None:
    """The process is frozen with its COMMIT on the wire, and it arrives when the claim belongs to another."""
    arrives, since = asyncio.Event(), len(machine.watch.ended)
    worker = await _meddle(machine, fault, functools.partial(_freeze_and_hold, arrives), is_over=False)
    if worker is None:
        return
    async with worker.busy:
        try:
            await machine.until_disowned(worker)
        finally:
            ended = machine.ended_sessions(worker, since)
            arrives.set()
            await wake_as_zombie(machine, worker, fault)
        fault.zombies += ended


async def _meddle(machine: Machine, fault: Fault, meddle: Meddle, *, is_over: bool = True) -> Worker | None:
    """Let the next COMMIT of one worker be meddled with; return the worker, or None if it committed nothing."""
    worker = await machine.pick(owning=True)
    was_hit = asyncio.Event()

    async def at_commit(connection: Connection, message: bytes) -> bool:
        was_hit.set()
        return await meddle(worker, connection, message)

    async with worker.busy:
        worker.link.at_commit = at_commit
        with suppress(TimeoutError):
            await until(was_hit.is_set, "a COMMIT", COMMIT_SECONDS)
        worker.link.at_commit = None
        fault.is_done, fault.detail = was_hit.is_set(), f"worker {worker.number}"
        if is_over:
            with suppress(TimeoutError):
                await until(lambda: not worker.service.is_running, "it has ended", 1.0)
            await worker.restart()
    return worker if was_hit.is_set() else None


async def _drop_answer(worker: Worker, connection: Connection, message: bytes) -> bool:
    connection.unheard = asyncio.Event()
    connection.to_server.write(message)
    with suppress(TimeoutError):
        await asyncio.wait_for(connection.unheard.wait(), ZOMBIE_SECONDS)
    return False


async def _drop_commit(worker: Worker, connection: Connection, message: bytes) -> bool:
    return False


async def _kill(worker: Worker, connection: Connection, message: bytes) -> bool:
    await worker.service.kill()
    return True


async def _freeze(worker: Worker, connection: Connection, message: bytes) -> bool:
    worker.freeze()
    return True


async def _freeze_and_hold(arrives: asyncio.Event, worker: Worker, connection: Connection, message: bytes) -> bool:
    worker.freeze()
    await arrives.wait()
    return True
