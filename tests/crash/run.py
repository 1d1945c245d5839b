"""One run: the load, the faults of a plan one after the other, the end, and what the checkers say."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from headrace.database.failures import CALL_ERRORS
from tests.crash.bookings import Bookings
from tests.crash.checkers import AT_ANY_TIME, CHECKERS
from tests.crash.checkers.violation import Violation
from tests.crash.cluster import NAME, Cluster, cluster
from tests.crash.evidence import Evidence, collect
from tests.crash.faults import FAULTS
from tests.crash.history import Fault, History
from tests.crash.keeping import keep_evidence, keep_logs
from tests.crash.load import Load
from tests.crash.machine import Machine
from tests.crash.plan import PUT_BACK, Plan, Step
from tests.crash.posting import Posting
from tests.crash.settling import settle
from tests.crash.watching import Watch
from tests.support.waiting import until

AHEAD = 20_000
"""Events that may be out and not applied."""
STUCK_COLLECT_SECONDS = 60.0
"""Within which the servers have to answer behind a run that got stuck."""
RESTART_SECONDS = 0.5
"""Between two looks for processes that have ended."""

Tell = Callable[[str, int, int], None]
"""Hears what is going on, how many faults have begun, and how many offsets are applied."""


@dataclass
class Result:
    """What came of a run."""

    plan: Plan
    history: History
    violations: list[Violation] = field(default_factory=list)
    evidence: Evidence | None = None
    error: str = ""
    """What ended the run before it could be judged."""

    @property
    def is_clean(self) -> bool:
        """True if nothing was violated and everything could be judged."""
        return not self.violations and not self.error


async def run(plan: Plan, tell: Tell, *, minutes: float, kept: Path) -> Result:
    """Do what the plan says, for so many minutes at most, and check everything; logs of a failing run go to `kept`."""
    history = History()
    result = Result(plan, history)
    with tempfile.TemporaryDirectory(prefix="headrace-crash-") as folder:
        tell("the servers start", 0, 0)
        async with cluster(plan, Path(folder)) as made:
            began, history.began_at = time.monotonic(), time.time()
            watch = Watch(made, history, began)
            load = Load(made.bootstrap, NAME, plan, history.sent)
            machine = Machine(plan, made, history, watch, random.Random(plan.seed), load)
            try:
                async with _company(machine):
                    async with _clients(machine):
                        await _disturb(machine, tell, began + minutes * 60)
                    tell("everything comes to its end", len(history.faults), watch.applied)
                    await settle(machine)
                tell("everything is compared", len(history.faults), watch.applied)
                result.evidence = await collect(made, history)
                for check in CHECKERS:
                    result.violations += check(result.evidence)
                if result.violations:
                    await asyncio.to_thread(keep_evidence, made, result.evidence, kept)
            except TimeoutError as error:
                result.violations.append(Violation("I10", str(error)))
                result.violations += await _of_stuck(made, history, kept)
            except Exception as error:
                result.error = f"{type(error).__name__}: {error}"
                error.add_note(f"seed {plan.seed}")
                raise
            finally:
                history.seconds = time.monotonic() - began
                if not result.is_clean:
                    keep_logs(made, kept)
    return result


async def _of_stuck(made: Cluster, history: History, kept: Path) -> list[Violation]:
    """End the processes of a run that got stuck, and return what is violated already, if the servers still answer."""
    for worker in made.workers:
        await worker.service.stop()
    try:
        async with asyncio.timeout(STUCK_COLLECT_SECONDS):
            evidence = await collect(made, history)
            await asyncio.to_thread(keep_evidence, made, evidence, kept)
    except (TimeoutError, *CALL_ERRORS):
        return []
    return [violation for check in AT_ANY_TIME for violation in check(evidence)]


@asynccontextmanager
async def _company(machine: Machine) -> AsyncIterator[None]:
    """Publish, watch, and start what has died, as long as the block runs."""
    tasks = [asyncio.create_task(each) for each in (machine.watch.run(), _pace(machine), _tend(machine))]
    machine.load.start()
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(machine.load.stop)
        for error in ended:
            if isinstance(error, Exception):
                raise error  # nothing was watched any more: that is no finding about the platform


@asynccontextmanager
async def _clients(machine: Machine) -> AsyncIterator[None]:
    """Post meanwhile, and book, unless the database is put back: that would lose what a booking was answered."""
    clients = machine.clients
    clients.append(Posting(machine.cluster, machine.history.sent))
    if all(step.kind != PUT_BACK for step in machine.plan.steps):
        clients.append(Bookings(machine.cluster, machine.history.sent))
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        yield
        for client in clients:
            client.stop()
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _disturb(machine: Machine, tell: Tell, deadline: float) -> None:
    """Do the faults at their places among the events."""
    plan, watch, under_way = machine.plan, machine.watch, set[asyncio.Task[None]]()
    try:
        for step in plan.steps:
            if not step.overlaps:
                await _finish(under_way)
            if time.monotonic() > deadline:
                break
            await machine.until_applied(_due(plan, step.number + 0.5))
            machine.stage = step.number
            _allow(machine)  # at once: a fault finds nothing to hit if all that may be out has been applied
            tell(f"{step.kind} {step.point}".strip(), step.number + 1, watch.applied)
            under_way.add(asyncio.create_task(_do(machine, step)))
        await _finish(under_way)
        machine.stage = len(plan.steps)
        await machine.until_applied(plan.events)  # if there was no time for all faults, much is left to be published
        await until(lambda: machine.load.is_out(plan.events), "all is published", machine.stuck_seconds)
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await machine.end_the_crowd()
        await machine.restart_the_dead()


async def _do(machine: Machine, step: Step) -> None:
    """Do one fault, and wait until events are applied again."""
    fault = Fault(step.kind, step.point, machine.watch.now)
    machine.history.faults.append(fault)
    await FAULTS[step.kind](machine, step, fault)
    applied = machine.watch.applied
    fault.ended = machine.watch.now
    await until(
        lambda: machine.watch.applied > applied or machine.is_idle,
        f"{step.kind}: events are applied",
        machine.stuck_seconds,
    )


async def _finish(tasks: set[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)
    tasks.clear()


def _due(plan: Plan, stages: float) -> int:
    """Return how many events belong to so many stages: one before each fault, and one behind the last."""
    return int(plan.events * stages / (len(plan.steps) + 1))


async def _pace(machine: Machine) -> None:
    while True:
        _allow(machine)
        await asyncio.sleep(0.05)


def _allow(machine: Machine) -> None:
    """Let the load run ahead of what is applied and of the faults, but not far."""
    plan, watch = machine.plan, machine.watch
    machine.load.allowed = min(plan.events, _due(plan, machine.stage + 2), watch.applied + AHEAD)


async def _tend(machine: Machine) -> None:
    while True:
        await machine.restart_the_dead()
        await asyncio.sleep(RESTART_SECONDS)
