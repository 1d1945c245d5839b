"""A run from its first event to its proof."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Protocol

from headrace.load.counters import Counters
from headrace.load.exactness import Proof, settle
from headrace.load.judge import judge
from headrace.load.pacing import Pacing
from headrace.load.plan import Plan
from headrace.load.probes import Probes
from headrace.load.results import Report, StepResult
from headrace.load.schedule import due_times
from headrace.load.sender import Sender
from headrace.load.target import Target, state_path
from headrace.load.watching import Watching, applied_per_second
from headrace.load.workload import Expected, Made, Workload
from headrace.version import VERSION

BETWEEN_SECONDS = 15.0
"""How long the next step waits for the lag of the last one."""
PROBE_SECONDS = 20.0
ASKED_TO_STOP = "It was asked to stop."


class Display(Protocol):
    """What a person sees of a run."""

    def step(self, name: str, rate: float, seconds: float) -> None:
        """A step begins."""
        ...

    def progress(self, pacing: Pacing, watching: Watching) -> None:
        """A step continues."""
        ...

    def ended(self, result: StepResult) -> None:
        """A step has its verdict."""
        ...

    def working(self, what: str, done: int, total: int) -> None:
        """Something else than a step is being done."""
        ...


class Run:
    """Runs one plan against one target, once."""

    def __init__(self, plan: Plan, target: Target, sender: Sender, counters: Counters, display: Display) -> None:
        self._plan = plan
        self._target = target
        self._sender = sender
        self._counters = counters
        self._display = display
        self._workload = Workload(plan.run, plan.kinds, plan.keys, plan.seed)
        self._expected = Expected()
        self._doubtful: list[Made] = []
        self._pacing: Pacing | None = None
        self._halted = asyncio.Event()
        self._sent = 0
        self._watching = Watching(target, plan.subscriptions, plan.topics, self._counts)

    async def complete(self) -> Report:
        """Send, wait, compare, and return what was found. A first Ctrl-C or SIGTERM ends the sending only.

        Raises: ConfigurationError (the target does not say how far it is; nothing was sent).
        """
        began_at = datetime.now(UTC)
        before = await self._counters.read()
        await self._watching.begin()
        with self._stoppable():
            async with self._watched():
                steps, knee, ended = await self._steps()
            unresolved = await settle(
                *(self._sender, self._doubtful, self._expected, self._plan.drain_seconds, self._display.working),
                batch=self._plan.batch,
            )
            self._display.working("waiting until everything is applied", 0, 1)
            is_drained = await self._watching.until_drained(self._plan.drain_seconds)
        after = await self._counters.read()
        counted = self._counters.since(before, after)
        proof = Proof(self._plan, self._target, self._expected, self._display.working)
        exactness = await proof.complete(
            self._watching,
            sent_again=len(self._doubtful),
            unresolved=unresolved,
            counted=counted,
            is_drained=is_drained,
        )
        return Report(
            run=self._plan.run,
            target=self._plan.target,
            service=self._plan.service,
            via="kafka" if self._plan.brokers else "http",
            started_at=began_at.isoformat(timespec="seconds"),
            plan=self._plan.sentences(),
            subscriptions=list(self._plan.subscriptions),
            machine=_machine(),
            steps=steps,
            samples=self._watching.samples,
            knee_per_second=knee,
            ended=ended,
            exactness=exactness,
        )

    def halt(self) -> None:
        """Send nothing more, and go on to the proof."""
        self._halted.set()
        if self._pacing is not None:
            self._pacing.halt()

    async def _steps(self) -> tuple[list[StepResult], float | None, str]:
        """Return the steps, the highest rate that was held, and why no further one was made."""
        plan, knee = self._plan, None
        steps: list[StepResult] = []
        too_many = f"The next step would go beyond --max-events {plan.max_events:,}."
        if plan.warm_up_seconds:
            if not self._may_send(plan.rates[0], plan.warm_up_seconds):
                return steps, knee, too_many
            steps.append(await self._step("warm-up", plan.rates[0], plan.warm_up_seconds))
            steps[0].verdict, steps[0].reasons = "warm-up", []
        for number, rate in enumerate(plan.rates, 1):
            if self._halted.is_set():
                return steps, knee, ASKED_TO_STOP
            if not self._may_send(rate, plan.seconds):
                return steps, knee, too_many
            step = await self._step(f"step {number}", rate, plan.seconds)
            step.verdict, step.reasons = judge(step, plan.p99_milliseconds)
            self._display.ended(step)
            steps.append(step)
            if self._halted.is_set():
                return steps, knee, ASKED_TO_STOP
            if step.verdict != "held":
                return steps, knee, f"{rate:,.0f} events/s were {'not held' if step.verdict == 'not held' else 'void'}."
            knee = rate
            if number < len(plan.rates) and not await self._watching.until_drained(BETWEEN_SECONDS):
                no_drain = f"The lag did not drain within {BETWEEN_SECONDS:g} s."
                return steps, knee, ASKED_TO_STOP if self._halted.is_set() else no_drain
        return steps, knee, "Every step was held."

    def _may_send(self, rate: float, seconds: float) -> bool:
        """True if so much goes into what is left of the most events: on average, for arrivals that are drawn."""
        return self._sent + max(rate * seconds, self._plan.batch) <= self._plan.max_events

    async def _step(self, name: str, rate: float, seconds: float) -> StepResult:
        plan = self._plan
        make, honours = self._workload.make, plan.honours_retry_after
        pacing = Pacing(self._sender, make, self._expected, plan.batch, honours_retry_after=honours)
        self._pacing = pacing
        self._display.step(name, rate, seconds)
        seed = plan.seed + round(rate)
        times = due_times(plan.arrivals, rate / plan.batch, seconds, seed)[: self._left // plan.batch]
        most_probes = self._left - len(times) * plan.batch
        lag_begin = self._watching.last.lag if self._watching.last is not None else None
        begin = self._watching.now
        probes = self._probes()
        async with asyncio.TaskGroup() as group:
            showing = group.create_task(self._show(pacing))
            probe_times = self._probe_times(seconds, seed)[:most_probes]
            probing = group.create_task(probes.run(probe_times, self._halted))
            await pacing.run(times)
            end = self._watching.now
            await self._watching.sample()
            await probing
            showing.cancel()
        self._sent += pacing.sent + probes.sent
        self._doubtful += [*pacing.doubtful, *probes.doubtful]
        seen = self._watching.between(begin, end)
        lags = [each.lag for each in seen if each.lag is not None]
        within = [each for each in seen if each.at_seconds <= begin + seconds]
        return StepResult(
            name=name,
            offered_per_second=rate,
            seconds=seconds,
            sends=pacing.sends,
            late_sends=pacing.late_sends,
            sent=pacing.sent,
            unsent=0 if self._halted.is_set() else pacing.unsent,
            accepted=pacing.accepted,
            refused=pacing.refused,
            in_doubt=len(pacing.doubtful),
            retry_after=pacing.retry_after,
            retried=pacing.retried,
            statuses={status: count for status, count in pacing.statuses.items() if count},
            accepted_per_second=round(pacing.accepted_in_time / seconds, 1),
            applied_per_second=applied_per_second(within),
            lag_begin=lag_begin,
            lag_end=lags[-1] if lags else None,
            lag_max=max(lags, default=None),
            to_accepted=pacing.latencies.percentiles(),
            to_visible=probes.latencies.percentiles(),
        )

    @property
    def _left(self) -> int:
        """Events that may still be sent."""
        return self._plan.max_events - self._sent

    def _probes(self) -> Probes:
        state = self._plan.state or ("", "")
        return Probes(
            self._sender,
            self._target,
            self._workload.make_probe,
            lambda key: state_path(*state, key),
            self._expected,
            PROBE_SECONDS,
        )

    def _probe_times(self, seconds: float, seed: int) -> Sequence[float]:
        rate = self._plan.probes_per_second if self._plan.state is not None else 0.0
        return due_times("poisson", rate, seconds, seed + 1) if rate else ()

    async def _show(self, pacing: Pacing) -> None:
        while True:
            self._display.progress(pacing, self._watching)
            await asyncio.sleep(0.25)

    def _counts(self) -> tuple[int, int]:
        return self._expected.events, self._pacing.in_flight if self._pacing is not None else 0

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._watching.run())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let the first signal end the sending, and a second one the run."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop() -> None:
            if self._halted.is_set():
                task.cancel()
            self.halt()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def _machine() -> dict[str, str]:
    """Return what ran the generator; the target's machine is the target's to know."""
    return {
        "generator": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "python": platform.python_version(),
        "headrace": VERSION,
    }
