"""A run against a target that is a double: how it ends, and what it says when the target cannot be asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from headrace.errors import ConfigurationError
from headrace.load.counters import Counters, Reading
from headrace.load.exactness import Proof, settle
from headrace.load.http_client import NoAnswerError
from headrace.load.pacing import Pacing
from headrace.load.plan import Plan
from headrace.load.results import Report, StepResult, Verdict
from headrace.load.run import Run
from headrace.load.sender import Outcome
from headrace.load.target import Progress, Target
from headrace.load.watching import Watching
from headrace.load.workload import Expected, Made, wallets
from tests.support.waiting import until

PLAN = Plan(
    target="http://127.0.0.1:8000",
    service="shop",
    run="r",
    kinds=tuple(wallets()),
    keys=3,
    sets_key=False,
    state=("wallets", "wallet"),
    subscriptions=("wallets",),
    brokers=(),
    arrivals="constant",
    rates=(100.0, 200.0),
    seconds=0.1,
    warm_up_seconds=0.1,
    batch=1,
    connections=1,
    probes_per_second=0.0,
    p99_milliseconds=1_000.0,
    honours_retry_after=False,
    max_events=1_000,
    drain_seconds=1.0,
    seed=1,
    metrics=(),
)


def held_if_accepted(step: StepResult, p99_milliseconds: float) -> tuple[Verdict, list[str]]:
    """Judge without any time, which depends on what else the machine does."""
    return ("held", []) if step.accepted else ("not held", ["nothing was accepted."])


@pytest.fixture(autouse=True)
def _is_quick_and_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.load.watching.PERIOD_SECONDS", 0.01)
    monkeypatch.setattr("headrace.load.run.judge", held_if_accepted)


def plan(**changes: Any) -> Plan:
    return Plan(**{**PLAN.__dict__, **changes})


class Double(Target):
    """Accepts events and applies them at once; is away if a test says so."""

    def __init__(self) -> None:
        self.expected = Expected()
        self.is_away = False
        self.lag = 0
        self.silent_samples = 0
        self.reads = self.sends = 0

    async def send(self, events: Sequence[Made]) -> Outcome:
        self.sends += 1
        if self.is_away:
            return Outcome("connection refused", is_in_doubt=True)
        self.expected.accept(events)
        return Outcome("202", is_accepted=True)

    async def progress(self, subscriptions: tuple[str, ...], topics: frozenset[str]) -> Progress:
        self.silent_samples -= 1
        if self.is_away or self.silent_samples >= 0:
            raise NoAnswerError("connection refused")
        return Progress(self.expected.events, self.expected.events - self.lag, 0)

    async def state(self, path: str) -> dict[str, Any] | None:
        self.reads += 1
        if self.is_away:
            raise NoAnswerError("connection refused")
        return dict(self.expected.states.get(path.rpartition("/")[2], {}))

    async def dead_letters(self, subscriptions: tuple[str, ...], source: str) -> AsyncIterator[dict[str, Any]]:
        if self.is_away:
            raise ConfigurationError("http://127.0.0.1:8000 does not answer: connection refused; is it running?")
        nothing: list[dict[str, Any]] = []
        for each in nothing:
            yield each


class Quiet:
    """Shows nothing; calls `at` with the name of each stage."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.reached: dict[str, Any] = {}

    def step(self, name: str, rate: float, seconds: float) -> None:
        self.stages.append(name)
        self.reached.get(name, lambda: None)()

    def progress(self, pacing: Pacing, watching: Watching) -> None: ...

    def ended(self, result: StepResult) -> None:
        self.reached.get(f"end of {result.name}", lambda: None)()

    def working(self, what: str, done: int, total: int) -> None: ...


class Unseen(Counters):
    """Those of a deployment that does not show them."""

    async def read(self) -> Reading | None:
        return None


class Running:
    """A run under test."""

    def __init__(self, **changes: Any) -> None:
        self.target = Double()
        self.display = Quiet()
        self.run = Run(plan(**changes), self.target, self.target, Unseen([], (), frozenset(), 0), self.display)

    async def complete(self) -> Report:
        async with asyncio.timeout(30):
            return await self.run.complete()


async def test_a_run_sends_its_steps_and_is_exact() -> None:
    running = Running()
    report = await running.complete()
    assert running.display.stages == ["warm-up", "step 1", "step 2"]
    assert (report.exactness.faults, report.ended) == ([], "Every step was held.")


@pytest.mark.parametrize(("stage", "stages"), [("warm-up", 1), ("end of step 1", 2)])
async def test_stop_sends_no_further_step(stage: str, stages: int) -> None:
    running = Running()
    running.display.reached[stage] = running.run.halt
    report = await running.complete()
    assert len(running.display.stages) == stages
    assert report.ended == "It was asked to stop."


async def test_stop_while_the_lag_drains_sends_no_further_step() -> None:
    running = Running()
    running.display.reached["end of step 1"] = lambda: setattr(running.target, "lag", 1)
    completing = asyncio.create_task(running.complete())
    await until(lambda: running.target.lag, "step 1 has ended")
    running.run.halt()
    running.target.lag = 0
    assert (await completing).ended == "It was asked to stop."
    assert running.display.stages == ["warm-up", "step 1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"warm_up_seconds": 3_600.0},
        {"rates": (float("inf"),)},
        {"batch": 2_000},
        {"max_events": 25, "probes_per_second": 1_000.0},
    ],
)
async def test_no_run_sends_more_than_its_most_events(changes: dict[str, Any]) -> None:
    running = Running(**changes)
    report = await running.complete()
    assert running.target.expected.events <= changes.get("max_events", PLAN.max_events)
    assert "--max-events" in report.ended


async def test_target_that_dies_leaves_the_report() -> None:
    running = Running()
    running.display.reached["step 2"] = lambda: setattr(running.target, "is_away", True)
    report = await running.complete()
    assert [step.verdict for step in report.steps] == ["warm-up", "held", "not held"]
    assert not report.exactness.is_exact
    assert any("is it running?" in fault for fault in report.exactness.faults)
    assert not any("applied" in fault for fault in report.exactness.faults)


async def test_states_are_not_asked_for_when_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.load.exactness.READ_ATTEMPTS", 1)
    target, expected = Double(), Expected()
    expected.accept([Made(f"{n}", wallets()[0], f"key-{n}", "{}", [1]) for n in range(1_000)])
    target.is_away = True
    proof = Proof(plan(), target, expected, lambda what, done, total: None)
    await proof._compare("applied", Counter())
    assert target.reads < 100


async def test_doubtful_events_are_sent_again_in_their_batches() -> None:
    target, expected = Double(), Expected()
    doubtful = [Made(f"{n}", wallets()[0], f"key-{n}", "{}", [1]) for n in range(250)]
    assert await settle(target, doubtful, expected, 10.0, lambda what, done, total: None, batch=100) == 0
    assert (target.sends, expected.events, target.expected.events) == (3, 250, 250)


async def test_begin_of_the_log_is_known_before_anything_is_sent() -> None:
    """A figure from after the first events would make records of the run look missing."""
    running = Running()
    running.target.silent_samples = 2
    assert (await running.complete()).exactness.faults == []


async def test_target_that_does_not_say_how_far_it_is_gets_nothing() -> None:
    running = Running()
    running.target.silent_samples = 1_000
    with pytest.raises(ConfigurationError, match="how far wallets is"):
        await running.complete()
    assert running.target.expected.events == 0
