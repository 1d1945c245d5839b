"""One subscription in one process: its seat in the group, its workers, and what is watched between batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from headrace.dead_letters.store import COUNT, REPLAYS
from headrace.engine.context import EngineContext
from headrace.engine.replay import Replay
from headrace.engine.worker import Phase, Worker
from headrace.errors import HeadraceError
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Membership, TopicPartition
from headrace.log.stored import stored_record
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

WATCH_SECONDS = 1.0
GAUGE_SECONDS = 5.0
STUCK_RESTARTS = 3
CLAIMED = """
select topic, partition, next_offset from headrace.claim where subscription = $1 and partition = any($2::int[])
"""
PAUSED = "select paused from headrace.subscription where subscription = $1"


class Consumer:
    """Starts a worker for each partition that the group gives to this process, and stops it when it is taken away."""

    def __init__(self, context: EngineContext, subscription: Subscription, partitions: int) -> None:
        self._context = context
        self._subscription = subscription
        self._partitions = partitions
        self._membership: Membership = context.log.membership(subscription.group, subscription.topics, self, "")
        self._restarts: dict[int, tuple[int, int]] = {}
        """By partition: (next offsets' sum when the client was last made anew, how often in a row)."""
        self._is_stopping = False
        self._watcher: asyncio.Task[None] | None = None
        self._revoked_at: float | None = None
        self._is_paused = True  # until Postgres was asked
        self._dead_reasons: set[str] = set()
        self.workers: dict[int, Worker] = {}

    @property
    def is_joined(self) -> bool:
        """True once the group was joined or is being waited for."""
        return self._membership.is_joined

    async def start(self) -> None:
        """Join the group."""
        with suppress(HeadraceError):
            await self._look_at_database()  # a paused subscription does not begin by running
        self._watcher = asyncio.create_task(self._watch(), name=f"consumer {self._subscription.name}")
        await self._membership.start()

    async def stop(self, deadline_seconds: float) -> bool:
        """Drain: finish what was taken, let the claims go, leave the group. False where the deadline cut it short."""
        self._is_stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        workers = list(self.workers.values())
        clean = await self._stop_workers(sorted(self.workers), deadline_seconds)
        await self._membership.commit(_offsets(workers))
        await self._membership.stop()
        return clean

    async def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """The partitions leave: finish the batch in flight and let the claims go."""
        numbers = sorted({partition.partition for partition in partitions} & self.workers.keys())
        if not numbers:
            return
        self._revoked_at = time.monotonic()
        self._context.metrics.rebalances_total.labels(subscription=self._subscription.name, cause="revoked").inc()
        await self._stop_workers(numbers, self._context.settings.engine.batch_seconds)

    async def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """The partitions that are ours from now on; claims them in the background."""
        if self._is_stopping:
            return
        numbers = {partition.partition for partition in partitions}
        logger.info("partitions assigned", subscription=self._subscription.name, partitions=sorted(numbers))
        self._context.metrics.rebalances_total.labels(subscription=self._subscription.name, cause="joined").inc()
        for number in sorted(numbers - self.workers.keys()):
            worker = Worker(self._context, self._subscription, number, self._partitions, is_paused=self._is_paused)
            self.workers[number] = worker
            worker.start()

    async def refused(self, reason: str) -> None:
        """Members of another database are in the group."""
        if reason:
            logger.error("the group is shared", subscription=self._subscription.name, error=reason)

    async def _stop_workers(self, numbers: Sequence[int], deadline_seconds: float) -> bool:
        """Stop the workers; one that another stop waits for as well is waited for, too."""
        workers = {number: self.workers[number] for number in numbers}
        stops = (worker.stop(deadline_seconds) for worker in workers.values())
        results = await asyncio.gather(*stops, return_exceptions=True)
        for number, worker in workers.items():
            if self.workers.pop(number, None) is None:
                continue
            for source in worker.topic_partitions:
                self._context.metrics.forget_partition(self._subscription.name, source.topic, source.partition)
        for error in results:
            if isinstance(error, BaseException):
                logger.error("a worker's stop failed", subscription=self._subscription.name, exc_info=error)
        return all(result is True for result in results)

    async def _watch(self) -> None:
        gauged_at = 0.0
        while True:
            try:
                await self._look_at_database()
                now = time.monotonic()
                if now - gauged_at >= GAUGE_SECONDS:
                    gauged_at = now
                    await self._look_at_log()
                    await self._count_dead_letters()
                    self._gauge_memory(time.time())
                    self._gauge_pool()
                await self._membership.commit(_offsets(self.workers.values()))
                self._note_standstill()
            except HeadraceError as error:
                logger.warning("cannot look at progress", subscription=self._subscription.name, error=str(error))
            except Exception:
                logger.exception("the watch of a subscription failed", subscription=self._subscription.name)
            await asyncio.sleep(WATCH_SECONDS)

    async def _look_at_database(self) -> None:
        name, group, numbers = self._subscription.name, self._subscription.group, list(self.workers)
        idle = {n: dict(w.next_offsets()) for n, w in self.workers.items() if w.pending_since_ms is None}
        async with self._context.connection() as connection:
            self._is_paused = bool(await connection.fetchval(PAUSED, group))
            replays = await connection.fetch(REPLAYS, group, numbers)
            claims = await connection.fetch(CLAIMED, group, list(idle))
        self._context.metrics.subscription_paused.labels(subscription=name).set(self._is_paused)
        by_number: dict[int, list[Replay]] = {}
        for row in replays:
            by_number.setdefault(row["partition"], []).append((row["id"], stored_record(row, row["partition"])))
        for number, worker in self.workers.items():
            worker.is_paused = self._is_paused
            worker.replays = by_number.get(number, [])
        for topic, partition, next_offset in claims:
            if next_offset < idle[partition].get(TopicPartition(topic, partition), 0):
                await self._start_anew(partition)

    async def _start_anew(self, number: int) -> None:
        """The database went back (a backup, a topic that was accepted): found here although no event may come."""
        worker = self.workers.get(number)
        if worker is not None and worker.phase is Phase.RUNNING and worker.pending_since_ms is None:
            logger.warning("the claim went back, claimed anew", subscription=self._subscription.name, partition=number)
            await worker.restart()

    async def _count_dead_letters(self) -> None:
        name = self._subscription.name
        async with self._context.connection() as connection:
            rows = await connection.fetch(COUNT, self._subscription.group, list(self.workers))
        open_by_reason = dict.fromkeys(self._dead_reasons, 0) | {row["reason"]: row["open"] for row in rows}
        self._dead_reasons |= open_by_reason.keys()
        for reason, count in open_by_reason.items():
            self._context.metrics.dead_letters_open.labels(subscription=name, reason=reason).set(count)

    async def _look_at_log(self) -> None:
        metrics, name, now = self._context.metrics, self._subscription.name, time.time()
        offsets = {number: worker.next_offsets() for number, worker in self.workers.items()}
        wanted = [source for known in offsets.values() for source in known]
        bounds = await self._context.log.bounds(wanted) if wanted else {}
        suspects = 0
        for number, known in offsets.items():
            worker = self.workers.get(number)
            if worker is None:
                continue
            lag = 0
            for source, next_offset in known.items():
                behind = max(0, bounds[source].end - next_offset)
                lag += behind
                labels = {"subscription": name, "topic": source.topic, "partition": str(source.partition)}
                metrics.lag_records.labels(**labels).set(behind)
                metrics.next_offset.labels(**labels).set(next_offset)
                since = worker.pending_since_ms
                age = max(0.0, now - since / 1000) if since is not None and behind else 0.0
                metrics.oldest_pending_seconds.labels(**labels).set(age)
                if source.topic in worker.sources:
                    held = worker.sources[source.topic].claim
                    metrics.claim_epoch.labels(**labels).set(held.epoch)
                    suspects += held.is_suspect
            await self._restart_if_stuck(number, worker, lag, sum(known.values()))
        running = sum(worker.phase is Phase.RUNNING for worker in self.workers.values())
        metrics.claims_held.labels(subscription=name).set(running)
        metrics.claim_crash_suspects.labels(subscription=name).set(suspects)

    def _gauge_pool(self) -> None:
        metrics, pool = self._context.metrics, self._context.pool
        metrics.db_pool_size.labels(pool="engine").set(pool.get_max_size())
        metrics.db_pool_connections.labels(pool="engine", state="idle").set(pool.get_idle_size())
        metrics.db_pool_connections.labels(pool="engine", state="used").set(pool.get_size() - pool.get_idle_size())

    def _gauge_memory(self, now: float) -> None:
        metrics, name = self._context.metrics, self._subscription.name
        lanes = [lane for worker in self.workers.values() for lane in worker.memory.lanes.by_key.values()]
        topic = self._subscription.topics[0]
        metrics.lane_keys.labels(subscription=name, topic=topic).set(len(lanes))
        metrics.lane_events.labels(subscription=name, topic=topic).set(sum(lane.events for lane in lanes))
        oldest = max((now - lane.since for lane in lanes), default=0.0)
        metrics.lane_oldest_seconds.labels(subscription=name, topic=topic).set(oldest)
        windows = [window for worker in self.workers.values() for window in worker.memory.windows.values()]
        metrics.dedupe_window_ids.labels(subscription=name).set(sum(len(window) for window in windows))
        spans = [now - window.since for window in windows if window.since is not None]
        metrics.dedupe_window_seconds.labels(subscription=name).set(min(spans, default=0.0))
        relays = [source.relay for worker in self.workers.values() for source in worker.sources.values()]
        metrics.emits_pending.labels(subscription=name).set(sum(relay.pending for relay in relays))
        metrics.emits_oldest_pending_seconds.labels(subscription=name).set(
            max((relay.oldest_pending_seconds for relay in relays), default=0.0)
        )

    async def _restart_if_stuck(self, number: int, worker: Worker, lag: int, position: int) -> None:
        """Lag and no progress: whatever the client says, it is made anew; three times in vain and the process goes.

        A refused partition waits for a person, one whose claim was lost for the group: neither is stuck.
        """
        if worker.phase in (Phase.REFUSED, Phase.FENCED):
            return
        at, times = self._restarts.get(number, (position, 0))
        if at != position:
            times = 0
            self._restarts.pop(number, None)
        limit = self._context.settings.engine.stuck_seconds
        if lag == 0 or time.monotonic() - worker.last_progress < limit:
            return
        name = self._subscription.name
        self._restarts[number] = (position, times + 1)
        self._context.metrics.client_recreated_total.labels(subscription=name, reason="stuck").inc()
        logger.error("no progress, the worker begins anew", subscription=name, partition=number, lag=lag)
        worker.touch()
        if times >= STUCK_RESTARTS:
            self._context.health.fail(f"stuck:{name}/{number}")
        await worker.restart()

    def _note_standstill(self) -> None:
        if self._revoked_at is None or not any(worker.phase is Phase.RUNNING for worker in self.workers.values()):
            return
        seconds, self._revoked_at = time.monotonic() - self._revoked_at, None
        name, ended_ns = self._subscription.name, time.time_ns()
        self._context.metrics.rebalance_standstill_seconds.labels(subscription=name).observe(seconds)
        self._context.tracing.rebalanced(
            name,
            partitions=len(self.workers),
            started_ns=ended_ns - round(seconds * 1e9),
            ended_ns=ended_ns,
            standstill_seconds=seconds,
        )


def _offsets(workers: Iterable[Worker]) -> dict[TopicPartition, int]:
    return {source: offset for worker in workers for source, offset in worker.next_offsets().items()}
