"""Postgres dies, is full, is locked, and goes back in time."""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import AsyncExitStack, suppress
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from headrace.database.failures import CALL_ERRORS
from tests.crash.history import Fault
from tests.crash.machine import Machine
from tests.crash.plan import Step
from tests.support.waiting import until

LOCKED_SECONDS = (2.0, 12.0)
"""A statement waits for a lock for 10 s at most."""
FULL_SECONDS = 5.0
LOST_OFFSETS, LOST_SECONDS = 3_000, 8.0
"""What is applied between the copy of the database and its loss."""

LULLS, LULL_SECONDS, STILL_SECONDS, ASKED_IN_A_LULL = 0.3, 60.0, 0.6, 50
"""How often the database is put back while nothing is read from the log, and how much waits then all the same."""


async def kill_postgres(machine: Machine, step: Step, fault: Fault) -> None:
    """The server ends with -9, and comes back on the same data."""
    async with machine.postgres_lock:
        await machine.cluster.postgres.kill()
        machine.watch.read_log()
        await machine.cluster.postgres.start()


async def restart_postgres(machine: Machine, step: Step, fault: Fault) -> None:
    """The server is shut down and started, as for an update."""
    async with machine.postgres_lock:
        await machine.cluster.postgres.shut_down()
        machine.watch.read_log()
        await machine.cluster.postgres.start()


async def end_sessions(machine: Machine, step: Step, fault: Fault) -> None:
    """Postgres ends the sessions of every worker."""
    query = (
        "select count(pg_terminate_backend(pid)) as ended from pg_stat_activity "
        "where datname = current_database() and application_name = 'headrace'"
    )
    ((ended,),) = await machine.watch.fetch(query)
    fault.detail = f"{ended} sessions"


async def lock_claims(machine: Machine, step: Step, fault: Fault) -> None:
    """Somebody else's transaction holds the claims for a while."""
    seconds = machine.chance.uniform(*LOCKED_SECONDS)
    fault.detail = f"{seconds:.1f} s"
    connection = await _connect(machine)
    with suppress(*CALL_ERRORS):
        async with connection.transaction():
            await connection.execute("select from headrace.claim for update")
            await asyncio.sleep(seconds)
    connection.terminate()


async def deadlock(machine: Machine, step: Step, fault: Fault) -> None:
    """Somebody else's transaction locks what a batch locks, in the other order; Postgres ends the batch's."""
    connection = await _connect(machine)
    with suppress(*CALL_ERRORS):
        async with connection.transaction():
            await connection.execute("set local deadlock_timeout = '3s'")
            await connection.execute("select from headrace.claim for update")
            await asyncio.sleep(0.5)  # batches wait for their claims now, and have written their states
            await connection.execute("select from headrace.state order by key for update")
    connection.terminate()


async def exhaust_connections(machine: Machine, step: Step, fault: Fault) -> None:
    """Others have every session that the server has, and the workers' sessions have just ended."""
    async with AsyncExitStack() as stack:
        for worker in machine.cluster.workers:
            worker.link.reset()
        opened = 0
        while opened < 200:
            try:
                connection = await asyncpg.connect(machine.cluster.url, timeout=5)
            except CALL_ERRORS:
                break
            stack.callback(connection.terminate)
            opened += 1
        fault.detail = f"{opened} sessions of others"
        await asyncio.sleep(FULL_SECONDS)


async def put_back(machine: Machine, step: Step, fault: Fault) -> None:
    """The database is replaced by a copy of what it was a while ago; the workers know a future that is lost.

    Now and then nothing is left to be read from the log: then that future is one of timers, lanes and effects alone.
    """
    postgres, copy = machine.cluster.postgres, machine.cluster.folder / "copy"
    is_lull = random.Random(step.chance).random() < LULLS
    if is_lull:
        machine.load.asked.extend(["reminds", "fail"] * ASKED_IN_A_LULL)
        for client in machine.clients:
            client.pause()
        await _until_lull(machine)
    async with machine.side_lock, machine.postgres_lock:
        await postgres.kill()
        machine.watch.read_log()
        await postgres.copy_data(copy)
        await postgres.start()
        applied = machine.watch.applied
        with suppress(TimeoutError):
            await until(lambda: machine.watch.applied > applied + LOST_OFFSETS, "a future that is lost", LOST_SECONDS)
        lost = machine.watch.applied - applied
        async with machine.watch.another_life():
            for worker in machine.cluster.workers:
                worker.link.is_open = False
            for client in machine.clients:
                client.go_on()  # an owner that has read something does not look at its claim before it applies that
            await postgres.kill()
            machine.watch.read_log()
            await postgres.put_back(copy)
            await postgres.start()
            shutil.rmtree(copy)
            before = len(machine.history.refusals)
        for worker in machine.cluster.workers:
            worker.link.reset()
            worker.link.is_open = True
    applied = machine.watch.applied
    with suppress(TimeoutError):
        await until(lambda: machine.watch.applied > applied, "the workers have noticed", 30.0)
    machine.watch.read_log()
    fault.zombies = sum(refusal.writer > 0 for refusal in machine.history.refusals[before:])
    fault.detail = f"{lost} offsets were taken back" + ", in a lull" * is_lull


async def _until_lull(machine: Machine) -> None:
    """Return when everything that may be out is applied, and timers and lanes still wait."""
    applied, since = -1, 0.0

    def is_lull() -> bool:
        nonlocal applied, since
        if machine.watch.applied != applied or not machine.load.is_at_its_end:
            applied, since = machine.watch.applied, machine.watch.now
        return machine.watch.now - since > STILL_SECONDS

    await until(is_lull, "nothing is left to be read", LULL_SECONDS)


async def _connect(machine: Machine) -> asyncpg.Connection:
    """Connect as the superuser, who may choose the victim of a deadlock."""
    address = urlsplit(machine.cluster.postgres.url)._replace(path=urlsplit(machine.cluster.url).path)

    async def connect() -> asyncpg.Connection | None:
        with suppress(*CALL_ERRORS):
            return await asyncpg.connect(urlunsplit(address), timeout=5)
        return None

    found: list[asyncpg.Connection] = []

    async def is_connected() -> bool:
        found[:] = [each for each in [await connect()] if each is not None]
        return bool(found)

    await until(is_connected, "Postgres answers", 60)
    return found[0]
