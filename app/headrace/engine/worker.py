"""The worker of one partition number of one subscription: begins a tenure, and another one when it has ended.

```
claiming ─▶ running ─▶ released (a stop)
   ▲           ├─▶ waiting  (the log or Postgres is away): again after a growing delay
   │           ├─▶ fenced   (another owner has claimed): again after one and a half heartbeats, if still assigned
   └───────────┴─▶ refused  (log or sagas do not fit the claim): again after half a minute, or when claims change
```
A task that does not end is abandoned: nobody waits for it, its claims are fenced by the next tenure's.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from headrace.backoff import Backoff
from headrace.engine.breaker import Breaker
from headrace.engine.claim import release
from headrace.engine.context import EngineContext
from headrace.engine.tenure import Orders, Tenure
from headrace.engine.threads import HandlerThreads
from headrace.errors import FencedError, LogMismatchError, StateError, StepRemovedError, TransportError
from headrace.handlers.subscription import Subscription
from headrace.log.ports import TopicPartition
from headrace.stopping import CANCEL_SECONDS, end_tasks, is_being_cancelled
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, REFUSED_SECONDS = 0.2, 10.0, 30.0
RELEASE_SECONDS = 5.0
"""How long a worker that ends tries to release its claims while Postgres is away: their next owner waits longer for one
that said it was leaving (test_claims_are_released_when_postgres_is_back)."""
LONGEST_HANDOVER_SECONDS = 300.0
"""A claim that nobody held for longer was not handed over: the service did not run."""


class Phase(Enum):
    """Where a worker stands; see the module's docstring."""

    CLAIMING = "claiming"
    RUNNING = "running"
    WAITING = "waiting"
    FENCED = "fenced"
    REFUSED = "refused"
    RELEASED = "released"


class Status(NamedTuple):
    """What a supervisor needs to know of a worker. Seconds are of the monotonic clock."""

    phase: Phase
    handler_seconds: float | None
    """How long the batch's handler has been running, 0 if it waits for a thread; None if none runs."""
    longest_seconds: float
    """How long the handler has been running that has for the longest time, those of lanes included; 0 if none runs."""
    idle_seconds: float
    """Since the worker last did something, or waited for somebody else: Postgres, the log, an operator."""
    position: int
    """The sum of its next offsets: grows with progress."""


class Worker:
    """Owns partition n of every topic of a subscription while it runs."""

    def __init__(
        self,
        context: EngineContext,
        subscription: Subscription,
        partition: int,
        threads: HandlerThreads,
        breaker: Breaker,
        *,
        is_paused: bool,
    ) -> None:
        self._context = context
        self._subscription = subscription
        self._partition = partition
        self._threads = threads
        self._breaker = breaker
        self._touched_at = time.monotonic()
        self._offsets: dict[TopicPartition, int] = {}
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        """Ends the delay before the next tenure."""
        self._settled = asyncio.Event()
        """Not set while the group divides the partitions anew."""
        self._settled.set()
        self._former: Worker | None = None
        self.has_ended = asyncio.Event()
        """Set when a stop has ended: this process holds nothing of the partition, but for a worker that came later."""
        self._given_at: float | None = time.monotonic()
        self.stood_still_seconds: float | None = None
        """How long nothing was applied when the partition came here; whoever has taken note of it sets it to None."""
        self._task: asyncio.Task[None] | None = None
        self._logger = logger.bind(subscription=subscription.name, partition=partition)
        self.phase = Phase.CLAIMING
        self.orders = Orders(is_paused)
        self.tenure: Tenure | None = None
        """What exists while the claims are held."""

    @property
    def topic_partitions(self) -> list[TopicPartition]:
        """The partitions that this worker owns or wants to own."""
        return [TopicPartition(topic, self._partition) for topic in self._subscription.topics]

    def next_offsets(self) -> dict[TopicPartition, int]:
        """Return the next offset of each claimed partition, also after the claims were released."""
        if self.tenure is not None:
            for holding in self.tenure.holdings.values():
                self._offsets[holding.claim.partition] = holding.claim.next_offset
        return self._offsets

    def status(self) -> Status:
        """Return how the worker is doing."""
        now, idle = time.perf_counter(), time.monotonic() - self._touched_at
        running = self.tenure.running if self.tenure is not None else []
        runs = [run for run in running if run.current is not None]
        waits = any(run.waits_for_thread for run in running if not run.is_beside)
        own = next((now - run.began for run in runs if not run.is_beside), 0.0 if waits else None)
        longest = max((now - run.began for run in runs), default=0.0)
        return Status(self.phase, own, longest, idle, sum(self.next_offsets().values()))

    def start(self, *, after: Worker | None = None) -> None:
        """Begin to claim; `after` another one of this process has let the partition go."""
        self.touch()
        self._former = after or self._former
        self._task = asyncio.create_task(self._run(), name=f"worker {self._subscription.name}/{self._partition}")

    async def stop(self, deadline_seconds: float) -> bool:
        """Finish the transaction in flight, publish, release the claims. Returns False if the deadline cut it short.

        Several may wait for one stop: a rebalance can come while the process drains. A task that does not end even when
        it is cancelled is abandoned.
        """
        self._stopping.set()
        self._hurry.set()
        self._settled.set()
        try:
            return await self._stop(deadline_seconds)
        finally:
            self.has_ended.set()

    async def _stop(self, deadline_seconds: float) -> bool:
        task = self._task
        if task is None:
            return True
        if self.phase is Phase.CLAIMING and not task.cancelling():
            task.cancel()  # nothing is in flight yet that could be finished
        done, _ = await asyncio.wait({task}, timeout=deadline_seconds)
        if not done and await end_tasks({task}, CANCEL_SECONDS):
            self._logger.error("a handler does not end, its task is abandoned")
            self._abandon_tenure()
            self._task = None
        if self._former is not None:
            await self._former.has_ended.wait()  # it still holds the claims, under the same name
        if not task.done() or task.cancelled() or task.exception() is not None:
            await self._release()
        return bool(done)

    def try_again(self) -> None:
        """Begin the next tenure without waiting any longer."""
        self._hurry.set()

    def abandon(self) -> None:
        """Begin another tenure at once, whatever the worker waits for. Waits for nothing."""
        task = self._task
        if task is None or self._stopping.is_set():
            return
        self._abandon_tenure()
        task.cancel()
        self.start()

    def _abandon_tenure(self) -> None:
        self.next_offsets()
        tenure, self.tenure = self.tenure, None
        if tenure is not None:
            tenure.abandon()

    def hold(self) -> None:
        """Go on with what is claimed, and claim nothing until `settle`: the partition may have another owner."""
        self._settled.clear()

    def settle(self) -> None:
        """Claim again if need be: the partition is still this process's."""
        self._settled.set()

    def touch(self) -> None:
        """Note that the worker does something, or waits for a good reason."""
        self._touched_at = time.monotonic()

    async def _run(self) -> None:
        while self._former is not None and not self._former.has_ended.is_set():
            await self._wait_a_second(self._former.has_ended)
        self._former = None
        backoff = Backoff(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
        while not self._stopping.is_set():
            if not self._settled.is_set():
                await self._wait_a_second(self._settled)
                continue
            began_at = time.monotonic()
            delay = 0.0
            try:
                await self._serve_a_tenure()
            except FencedError as error:
                self._enter(Phase.FENCED)
                self._context.metrics.claim_fenced_total.labels(subscription=self._subscription.name).inc()
                self._logger.warning("claim lost", error=str(error))
                # Kafka will tell a former owner that the partition is not its own: do not take it back before.
                delay = self._context.settings.kafka.heartbeat_seconds * 1.5
            except (LogMismatchError, StepRemovedError) as error:
                self._enter(Phase.REFUSED)
                self._context.health.not_ready(self._refusal, str(error))
                self._logger.error("partition refused", error=str(error))
                delay = REFUSED_SECONDS
            except (TransportError, StateError) as error:
                self._enter(Phase.WAITING)
                self._logger.warning("waiting", error=str(error))
            except asyncio.CancelledError:  # a client of the log may let one of its own through
                if is_being_cancelled() or not self._is_current:
                    raise
                self._enter(Phase.WAITING)
                self._logger.warning("a part of the worker was cancelled, it starts again")
            except Exception:
                self._enter(Phase.WAITING)
                self._logger.exception("the worker failed and starts again")
            if not self._is_current:
                return
            if self.phase is Phase.WAITING:
                if time.monotonic() - began_at > LONGEST_DELAY_SECONDS:
                    backoff.reset()
                delay = backoff.next_seconds()
            self.touch()
            if not self._stopping.is_set():
                self._hurry.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._hurry.wait()
        await self._release()

    async def _wait_a_second(self, event: asyncio.Event) -> None:
        """Return when the event is set, or after a second."""
        self._touch_if_current()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await event.wait()

    async def _serve_a_tenure(self) -> None:
        self._enter(Phase.CLAIMING)
        self.orders.claim_again = self.orders.is_fenced = False
        context, subscription = self._context, self._subscription
        tenure = Tenure(
            context, subscription, self._partition, self._threads, self.orders, self._touch_if_current, self._breaker
        )
        self.tenure = tenure
        try:
            with context.tracing.claim(subscription.name, ",".join(subscription.topics), self._partition):
                await tenure.begin()
            context.health.ready(self._refusal)
            self._enter(Phase.RUNNING)
            self._note_standstill(tenure)
            await tenure.serve(self._stopping)
        finally:
            await tenure.close(is_polite=self._stopping.is_set() and self._is_current)
            if self._is_current:
                self.next_offsets()
                self.tenure = None

    def _note_standstill(self, tenure: Tenure) -> None:
        """Keep how long the partition stood still, once: from its release, or from when it was given to us."""
        if self._given_at is not None:
            seconds = tenure.seconds_since_release
            if seconds is None or seconds > LONGEST_HANDOVER_SECONDS:
                seconds = time.monotonic() - self._given_at
            self.stood_still_seconds, self._given_at = seconds, None

    @property
    def _is_current(self) -> bool:
        """False for a task that was abandoned: it changes nothing any more."""
        return asyncio.current_task() is self._task

    def _enter(self, phase: Phase) -> None:
        if self._is_current:
            self.phase = phase

    def _touch_if_current(self) -> None:
        if self._is_current:
            self.touch()

    @property
    def _refusal(self) -> str:
        return f"partition_refused:{self._subscription.name}/{self._partition}"

    async def _release(self) -> None:
        """Take this process's name out of the claims and out of readiness, however the worker came to its end."""
        context, subscription = self._context, self._subscription
        self.phase = Phase.RELEASED
        context.health.ready(self._refusal)
        backoff, until = Backoff(0.05, 1.0), time.monotonic() + RELEASE_SECONDS
        while True:
            try:
                async with context.connection() as connection:
                    await release(connection, subscription.group, self._partition, subscription.topics, context.owner)
            except StateError as error:
                if time.monotonic() > until:
                    self._logger.warning("the claims could not be released", error=str(error))
                    return
            else:
                return
            await asyncio.sleep(backoff.next_seconds())
