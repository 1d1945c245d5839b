"""What a fault works with: the cluster, what is seen of it, and ways to choose and to wait."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field

from tests.crash.clients import Clients
from tests.crash.cluster import Cluster, Worker
from tests.crash.history import History
from tests.crash.load import Load
from tests.crash.plan import Plan
from tests.crash.watching import Watch
from tests.support.waiting import until


@dataclass(eq=False)
class Machine:
    """One run."""

    plan: Plan
    cluster: Cluster
    history: History
    watch: Watch
    chance: random.Random
    load: Load
    clients: list[Clients] = field(default_factory=list)
    """Those over HTTP."""
    postgres_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by what stops the server."""
    kafka_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by what stops a broker."""
    crowd: list[asyncio.subprocess.Process] = field(default_factory=list)
    """Processes that take the processors away from all others for a while."""
    side_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by what meddles with a log, and by what takes the database back meanwhile."""
    stage: int = -1
    """The last fault that has begun."""

    @property
    def stuck_seconds(self) -> float:
        """So long may nothing be applied while something waits, whatever has happened."""
        return self.plan.patience / 2

    async def pick(self, *, owning: bool = False) -> Worker:
        """Return a worker that nothing disturbs, while another one lives: `owning`, one that holds a claim."""
        found: list[Worker] = []

        async def is_found() -> bool:
            alive = [worker for worker in self.cluster.workers if worker.is_alive]
            free = [worker for worker in alive if not worker.busy.locked()]
            if len(alive) < 2 or not free:
                return False
            found[:] = [self.chance.choice(free)]
            return not owning or await self.owns(found[0]) > 0

        await until(is_found, "a worker lives that can be disturbed", self.stuck_seconds)
        return found[0]

    async def owns(self, worker: Worker) -> int:
        """Return how many claims the worker's process holds."""
        query = "select count(*) from headrace.claim where owner like $1"
        ((count,),) = await self.watch.fetch(query, f"%/{worker.pid}/%")
        return int(count)

    async def until_disowned(self, worker: Worker) -> None:
        """Return when others hold everything that the worker held."""

        async def is_disowned() -> bool:
            return await self.owns(worker) == 0

        await until(is_disowned, f"worker {worker.number} has lost its claims", self.stuck_seconds)

    def ended_sessions(self, worker: Worker, since: int) -> int:
        """Return how many transactions of the worker Postgres has ended for its silence; `since`: how many of all."""
        self.watch.read_log()
        return sum(writer == worker.pid for writer in self.watch.ended[since:])

    async def until_applied(self, offsets: int) -> None:
        """Return when so many offsets are applied. Raises: TimeoutError (nothing is applied any more)."""
        last, since = self.watch.applied, time.monotonic()
        while last < offsets:
            await asyncio.sleep(0.05)
            if self.watch.applied != last:  # it falls if the database is put back
                last, since = self.watch.applied, time.monotonic()
            elif time.monotonic() - since > self.stuck_seconds:
                raise TimeoutError(f"nothing was applied for {self.stuck_seconds:g} s, at {last} of {offsets} offsets")

    @property
    def is_idle(self) -> bool:
        """True if all that is out is applied, as far as can be told from the numbers."""
        return self.watch.applied >= self.history.sent.produced + self.history.sent.extras["posted"]

    async def end_the_crowd(self) -> None:
        """End what takes the processors away, if it has not ended by itself."""
        for process in self.crowd:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def restart_the_dead(self) -> None:
        """Start every worker whose process has ended, as Kubernetes does."""
        for worker in self.cluster.workers:
            if not worker.busy.locked():
                async with worker.busy:
                    await worker.restart()
