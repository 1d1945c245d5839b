"""One subscription in one process: its seat in the group, and a worker for each partition that it is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from headrace import sql
from headrace.engine.breaker import Breaker, Outage
from headrace.engine.context import EngineContext
from headrace.engine.gauges import Gauges
from headrace.engine.handover import tell_leaving
from headrace.engine.supervisor import Supervisor
from headrace.engine.threads import HandlerThreads
from headrace.engine.watch import Watch
from headrace.engine.worker import Phase, Worker
from headrace.engine.zeros import begin_at_zero
from headrace.errors import HeadraceError
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Membership, TopicPartition
from headrace.log.stored import plain
from headrace.stopping import CANCEL_SECONDS, end_tasks, is_being_cancelled
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

STEP_DOWN_SECONDS = 6.0
"""How long a stop waits for the group: then its brokers are away, and so are the others'."""


class Consumer:
    """Starts a worker for each partition that the group gives to this process, and stops it when it is taken away."""

    def __init__(self, context: EngineContext, subscription: Subscription) -> None:
        self._context = context
        self._subscription = subscription
        self._membership: Membership = context.log.membership(
            subscription.group, subscription.topics, self, context.installation
        )
        self.name, self.group = subscription.name, subscription.group
        self.workers: dict[int, Worker] = {}
        self._leaving: dict[int, Worker] = {}
        """Those that release what is another's from now on."""
        self._handovers: set[asyncio.Task[None]] = set()
        self.threads = HandlerThreads(subscription.name, context.settings.engine.handler_threads)
        self.breaker = Breaker(subscription.name, context.settings.engine.outage_keys, time.monotonic)
        self._told: Outage | None = None
        """The outage that the database was told of."""
        self._watch = Watch(context, subscription, self.workers)
        self._gauges = Gauges(context, subscription, self.workers, self.breaker)
        self._supervisor = Supervisor(context, subscription.name, self.threads, self.workers)
        self._joining = f"joining:{self.name}"
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._rebalancing_at: float | None = None
        self._longest_standstill_seconds = 0.0
        self._incomplete: set[int] = set()
        """Numbers that are ours in some of the topics only."""
        self._imbalance = ""

    async def start(self) -> None:
        """Join the group."""
        begin_at_zero(self._context.metrics, self._subscription)
        with suppress(HeadraceError):
            await self._watch.look()  # a paused subscription does not begin by running
        name = self._subscription.name
        if self._context.settings.role == "worker":  # one that also serves producers does so meanwhile
            self._context.health.not_ready(self._joining, "The consumer group was not joined yet.")
        self._tasks = [
            asyncio.create_task(self._look(), name=f"watch {name}"),
            asyncio.create_task(self._supervisor.run(), name=f"supervisor {name}"),
        ]
        await self._membership.start()

    async def stop(self, deadline_seconds: float) -> bool:
        """Drain: finish what was taken, release the claims, leave the group. False if the deadline cut it short.

        If others can take over, they are told first, and the workers go on until the group has divided what they have:
        so a partition stands still from its release to the next claim. A worker that is fenced then claims no more.
        """
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        workers = list(self.workers.values())
        if self._membership.is_alone:
            clean = await self._stop_workers(sorted(self.workers), deadline_seconds)
            await self._step_down(workers)
        else:
            for worker in workers:
                worker.hold()
            stepping_down = asyncio.create_task(self._step_down(workers), name=f"step down {self.name}")
            await asyncio.wait({stepping_down}, timeout=STEP_DOWN_SECONDS)
            clean = await self._stop_workers(sorted(self.workers), deadline_seconds)
            await stepping_down
        await end_tasks(self._handovers, CANCEL_SECONDS)
        self.threads.stop()
        self.breaker.outage = None
        with suppress(HeadraceError):
            await self._tell_outage(None)
        return clean

    async def _step_down(self, workers: Sequence[Worker]) -> None:
        """Tell the group how far we are and that we go, and the next owners that claims will be released."""
        await self._membership.commit(_offsets(workers))
        if not self._membership.is_alone:
            await tell_leaving(self._context, self._subscription, sorted(self.workers))
        await self._membership.stop()

    async def lost(self, partitions: Iterable[TopicPartition]) -> None:
        """The seat is lost: finish the transactions in flight and release the claims."""
        numbers = sorted({partition.partition for partition in partitions} & self.workers.keys())
        if not numbers:
            return
        self._note_rebalance("lost")
        await self._stop_workers(numbers, self._context.settings.engine.batch_seconds)

    async def rebalancing(self) -> None:
        """The partitions are divided anew: the workers go on, but claim nothing."""
        self._rebalancing_at = self._rebalancing_at or time.monotonic()
        for worker in self.workers.values():
            worker.hold()

    async def assigned(self, partitions: Iterable[TopicPartition], *, was_removed: bool = False) -> None:
        """The partitions that are ours from now on: claims new ones in the background, lets go of those that leave.

        A number is worked on only if it is ours in every topic: while a rollout adds a topic to the subscription, two
        members may share a number, and would take its claims from each other.
        """
        if self._is_stopping:
            return
        self._context.health.ready(self._joining)  # also without a partition: a spare process is ready
        ours = set(partitions)
        topics = self._subscription.topics
        numbers = {n for _, n in ours if all(TopicPartition(topic, n) in ours for topic in topics)}
        self._incomplete = {n for _, n in ours} - numbers
        logger.info("partitions assigned", subscription=self._subscription.name, partitions=sorted(numbers))
        if was_removed:
            self._note_rebalance("lost")
        self._note_rebalance("joined")
        for number in sorted(numbers & self.workers.keys()):
            self.workers[number].settle()
        for number in sorted(numbers - self.workers.keys()):
            worker = self.workers[number] = Worker(
                self._context,
                self._subscription,
                number,
                self.threads,
                self.breaker,
                is_paused=self._watch.is_paused,
            )
            worker.start(after=self._leaving.get(number))
        self._let_go(sorted(self.workers.keys() - numbers))

    async def refused(self, reason: str) -> None:
        """The group has members of another database, or no longer (`reason` is empty)."""
        condition = f"group_refused:{self._subscription.name}"
        if reason:
            logger.error("the group is shared with another database", group=self._subscription.group, error=reason)
            self._context.health.not_ready(condition, reason)
        else:
            self._context.health.ready(condition)

    def _let_go(self, numbers: Sequence[int]) -> None:
        """Release the partitions once their transactions have ended, in the background: the group waits for nobody."""
        if not numbers:
            return
        self._note_rebalance("revoked")
        leaving = {number: self.workers[number] for number in numbers}
        for number, worker in leaving.items():
            self._forget(number, worker)
        self._leaving |= leaving
        task = asyncio.create_task(self._hand_over(leaving), name=f"hand over {self.name}")
        self._handovers.add(task)
        task.add_done_callback(self._handovers.discard)

    async def _hand_over(self, leaving: Mapping[int, Worker]) -> None:
        await tell_leaving(self._context, self._subscription, sorted(leaving))
        await self._stopped(leaving.values(), self._context.settings.engine.batch_seconds)
        for number, worker in leaving.items():
            if self._leaving.get(number) is worker:
                del self._leaving[number]

    async def _stop_workers(self, numbers: Sequence[int], deadline_seconds: float) -> bool:
        """Stop the workers, and those that let go already. False if the deadline cut one short."""
        workers = {number: self.workers[number] for number in numbers}
        is_clean = await self._stopped([*workers.values(), *self._leaving.values()], deadline_seconds)
        for number, worker in workers.items():
            if self.workers.get(number) is worker:
                self._forget(number, worker)
        return is_clean

    async def _stopped(self, workers: Iterable[Worker], deadline_seconds: float) -> bool:
        """Return when the workers have stopped; one that another stop waits for as well is waited for, too."""
        results = await asyncio.gather(*(worker.stop(deadline_seconds) for worker in workers), return_exceptions=True)
        for error in results:
            if isinstance(error, BaseException):
                logger.error("a worker's stop failed", subscription=self.name, exc_info=error)
        return all(result is True for result in results)

    def _forget(self, number: int, worker: Worker) -> None:
        del self.workers[number]
        self._supervisor.lag.pop(number, None)
        for partition in worker.topic_partitions:
            self._context.metrics.forget_partition(self._subscription.name, partition.topic, partition.partition)

    def _note_rebalance(self, cause: str) -> None:
        self._rebalancing_at = self._rebalancing_at or time.monotonic()
        self._context.metrics.rebalances_total.labels(subscription=self._subscription.name, cause=cause).inc()

    async def _look(self) -> None:
        """Look at the database and the log, and tell the group how far we are, until cancelled."""
        gauged_at = 0.0
        while True:
            try:
                await self._watch.look()
                await self._tell_outage(self._outage())
                now = time.monotonic()
                if now - gauged_at >= self._context.pace.gauge:
                    gauged_at = now
                    await self._compare_topics()
                    self._supervisor.lag.update(await self._gauges.show())
                await self._membership.commit(_offsets(self.workers.values()))
                self._note_standstill()
            except HeadraceError as error:
                logger.warning("cannot look at progress", subscription=self._subscription.name, error=str(error))
            except asyncio.CancelledError:  # a client of the log may let one of its own through
                if is_being_cancelled():
                    raise
                logger.warning("a part of the watch was cancelled", subscription=self._subscription.name)
            except Exception:
                logger.exception("the watch of a subscription failed", subscription=self._subscription.name)
            await asyncio.sleep(self._context.pace.watch)

    def _outage(self) -> Outage | None:
        """Return which outage is waited for: of a handler, of what a partition reads, or of an effect."""
        effects, keys = self._subscription.effects.values(), self._context.settings.engine.outage_keys
        limiters = [self._context.limiters.of(self._subscription, each, keys) for each in effects]
        held_up = [worker.tenure.outage for worker in self.workers.values() if worker.tenure is not None]
        met = [self.breaker.outage, *held_up, *(limiter.breaker.outage for limiter in limiters)]
        return next(filter(None, met), None)

    async def _tell_outage(self, outage: Outage | None) -> None:
        """Write into the database which outage is waited for, for those who ask any process. Raises: StateError."""
        group, owner = self._subscription.group, self._context.owner
        if outage == self._told:
            return
        async with self._context.connection() as connection:
            if outage is None:
                await connection.execute(sql.outage.OVER, group, owner)
            else:
                error = plain(outage.error)
                await connection.execute(sql.outage.TELL, group, owner, outage.handler, error, outage.since)
        self._told = outage

    async def _compare_topics(self) -> None:
        """Say so if partitions belong to nobody, since only some of the topics have that many."""
        condition, sentence = f"not_co_partitioned:{self._subscription.name}", ""
        if self._incomplete:
            infos = await self._context.log.topics(self._subscription.topics)
            if max(self._incomplete) >= min(info.partitions for info in infos.values()):
                shown = ", ".join(f"{topic}: {info.partitions}" for topic, info in infos.items())
                sentence = (
                    f"subscription {self._subscription.name} reads topics that are not co-partitioned ({shown}), so "
                    "partitions that some of them lack are not read; give them the same number, then run `headrace "
                    "topics --accept` for each."
                )
        if sentence and sentence != self._imbalance:
            logger.error("partitions are not read", subscription=self._subscription.name, error=sentence)
        self._imbalance = sentence
        if sentence:
            self._context.health.not_ready(condition, sentence)
        else:
            self._context.health.ready(condition)

    def _note_standstill(self) -> None:
        name, workers = self._subscription.name, list(self.workers.values())
        for worker in workers:
            seconds, worker.stood_still_seconds = worker.stood_still_seconds, None
            if seconds is not None:
                self._context.metrics.rebalance_standstill_seconds.labels(subscription=name).observe(seconds)
                self._longest_standstill_seconds = max(self._longest_standstill_seconds, seconds)
        if self._rebalancing_at is None or not all(worker.phase is Phase.RUNNING for worker in workers):
            return
        seconds, self._rebalancing_at = time.monotonic() - self._rebalancing_at, None
        longest, self._longest_standstill_seconds = self._longest_standstill_seconds, 0.0
        ended_ns = time.time_ns()
        self._context.tracing.rebalanced(
            name,
            partitions=len(workers),
            started_ns=ended_ns - round(seconds * 1e9),
            ended_ns=ended_ns,
            standstill_seconds=longest,
        )


def _offsets(workers: Iterable[Worker]) -> dict[TopicPartition, int]:
    return {partition: offset for worker in workers for partition, offset in worker.next_offsets().items()}
