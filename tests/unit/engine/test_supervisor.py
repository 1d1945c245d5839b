"""When a worker is stuck, and a process beyond repair: the supervisor's judgements as tables."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from headrace.engine.context import EngineContext
from headrace.engine.pace import Pace
from headrace.engine.supervisor import STUCK_RESTARTS, Supervisor, is_stuck
from headrace.engine.threads import ABANDONED_THREADS, HandlerThreads
from headrace.engine.worker import Phase, Status, Worker
from headrace.settings import EngineSettings, Settings
from headrace.telemetry.health import Health
from headrace.telemetry.metrics import Metrics


def _status(
    phase: Phase = Phase.RUNNING,
    *,
    idle: float = 0.0,
    runs: float | None = None,
    position: int = 7,
) -> Status:
    return Status(phase, runs, runs or 0.0, idle, position)


@pytest.mark.parametrize(
    ("status", "waiting", "stuck"),
    [
        (_status(idle=61.0), 61.0, True),
        (_status(idle=61.0), 59.0, False),  # records came late
        (_status(idle=59.0), 61.0, False),  # it does something, such as retries of lanes
        (_status(idle=61.0), 0.0, False),  # nothing waits, or it gets on
        (_status(Phase.WAITING, idle=61.0), 61.0, True),
        (_status(Phase.CLAIMING, idle=61.0), 0.0, True),  # whether something waits is known after the claim
        (_status(Phase.CLAIMING, idle=59.0), 61.0, False),
        (_status(Phase.REFUSED, idle=1_000.0), 1_000.0, False),
        (_status(Phase.FENCED, idle=1_000.0), 1_000.0, False),
        (_status(Phase.RELEASED, idle=1_000.0), 1_000.0, False),
        (_status(idle=61.0, runs=1.0), 61.0, False),  # a handler is judged by its own limit
    ],
)
def test_worker_is_stuck_if_work_waits_and_it_does_nothing(status: Status, waiting: float, stuck: bool) -> None:
    assert is_stuck(status, waiting, 60.0) is stuck


class FakeWorker:
    """A worker that is as the test says, and counts how often it was abandoned."""

    def __init__(self, status: Status) -> None:
        self.now = status
        self.abandoned = 0

    def status(self) -> Status:
        return self.now

    def abandon(self) -> None:
        self.abandoned += 1


def _supervisor(worker: FakeWorker, abandoned_threads: int = 0) -> Supervisor:
    settings = Settings(log="memory", engine=EngineSettings(stuck_seconds=60.0, handler_seconds=30.0))
    parts = SimpleNamespace(settings=settings, metrics=Metrics(version="0", role="all"), health=Health(), pace=Pace())
    threads = cast(HandlerThreads, SimpleNamespace(abandoned=abandoned_threads))
    workers = cast("dict[int, Worker]", {0: worker})
    return Supervisor(cast(EngineContext, parts), "notes", threads, workers)


@pytest.mark.parametrize(
    ("threads", "reasons"),
    [(0, []), (ABANDONED_THREADS - 1, []), (ABANDONED_THREADS, ["hung_handlers:notes"])],
)
def test_process_with_too_many_hung_threads_is_beyond_repair(threads: int, reasons: list[str]) -> None:
    supervisor = _supervisor(FakeWorker(_status()), threads)
    supervisor.look()
    health = supervisor.context.health
    assert health.liveness() == (not reasons, reasons)
    assert all(str(ABANDONED_THREADS) in detail for detail in health.failures().values())


def test_worker_that_is_stuck_again_and_again_fails_liveness() -> None:
    worker = FakeWorker(_status(Phase.CLAIMING, idle=61.0))
    supervisor = _supervisor(worker)
    for times in range(1, STUCK_RESTARTS + 1):
        supervisor.look()
        assert worker.abandoned == times
        assert supervisor.context.health.liveness() == (True, [])
    supervisor.look()
    assert supervisor.context.health.liveness() == (False, ["stuck:notes/0"])


def test_progress_between_restarts_keeps_the_process_alive() -> None:
    worker = FakeWorker(_status(Phase.CLAIMING, idle=61.0))
    supervisor = _supervisor(worker)
    for position in range(3 * STUCK_RESTARTS):
        worker.now = _status(Phase.CLAIMING, idle=61.0, position=position)
        supervisor.look()
    assert worker.abandoned == 3 * STUCK_RESTARTS
    assert supervisor.context.health.liveness() == (True, [])


def test_worker_that_cannot_be_judged_hides_no_other() -> None:
    """One whose status raises does not keep the others from being looked at."""

    class Broken(FakeWorker):
        def status(self) -> Status:
            raise RuntimeError("no status")

    worker = FakeWorker(_status(Phase.CLAIMING, idle=61.0))
    supervisor = _supervisor(worker)
    workers: Any = supervisor.workers
    workers |= {-1: Broken(_status())}
    supervisor.workers = dict(sorted(workers.items()))
    supervisor.look()
    assert worker.abandoned == 1
