"""What a consumer shows of itself: lag, claims, lanes, windows, emits, connections."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping

import msgspec

from headrace import sql
from headrace.engine.breaker import SCHEMA_REGISTRY, Breaker
from headrace.engine.context import EngineContext
from headrace.engine.lanes import Lane
from headrace.engine.tenure import Tenure
from headrace.engine.worker import Phase, Worker
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Bounds, TopicPartition
from headrace.projections.projection import Projection
from headrace.sagas.kept import SAGA_STATE

COUNT_SECONDS = 60.0
"""Between two counts of all timers: a million take about a tenth of a second."""


class Gauges:
    """The gauges of one subscription in one process."""

    def __init__(
        self, context: EngineContext, subscription: Subscription, workers: Mapping[int, Worker], breaker: Breaker
    ) -> None:
        self._context = context
        self._metrics = context.metrics
        self._subscription = subscription
        self._name = subscription.name
        self._workers = workers
        self._breaker = breaker
        self._reads_schemas = not context.registry.schema_decoders.keys().isdisjoint(subscription.topics)
        self._reasons: set[str] = set()
        self._counts_timers_at = 0.0

    async def show(self) -> dict[int, int]:
        """Set every gauge; return the lag of each partition number. Raises: TransportError, StateError."""
        await self._show_dead_letters()
        await self._show_audit()
        await self._show_timers()
        await self._show_sagas()
        await self._show_rebuild()
        self._show_memory(time.time())
        self._show_pool()
        self._show_outage()
        self._show_effects()
        return await self._show_lag()

    async def _show_dead_letters(self) -> None:
        async with self._context.connection() as connection:
            rows = await connection.fetch(
                sql.dead_letter.COUNT_OPEN_BY_REASON, self._subscription.group, list(self._workers)
            )
        open_by_reason = dict.fromkeys(self._reasons, 0) | {row["reason"]: row["open"] for row in rows}
        self._reasons |= open_by_reason.keys()
        for reason, count in open_by_reason.items():
            self._metrics.dead_letters_open.labels(subscription=self._name, reason=reason).set(count)

    async def _show_audit(self) -> None:
        """Show what the last audit found, whichever process made it: else a mended promise would alarm for an hour."""
        async with self._context.connection() as connection:
            row = await connection.fetchrow(sql.subscription.LAST_AUDIT, self._subscription.group)
        if row is None or row["mismatches"] is None:
            return
        for check, count in msgspec.json.decode(row["mismatches"]).items():
            self._metrics.audit_mismatches.labels(subscription=self._name, check=check).set(count)
        ended = row["audited_at"].timestamp()
        self._metrics.audit_last_run_timestamp_seconds.labels(subscription=self._name).set(ended)

    async def _show_timers(self) -> None:
        """Count the timers that are due; all of them once a minute, since a million are not counted for nothing."""
        gauge = self._metrics.timers_pending.labels(subscription=self._name)
        due = 0
        if any(tenure.memory.timers.has_timers for tenure in self._tenures()):
            owned = (self._subscription.group, list(self._workers))
            async with self._context.connection() as connection:
                due = await connection.fetchval(sql.timer.COUNT_DUE, *owned)
                if time.monotonic() >= self._counts_timers_at:
                    self._counts_timers_at = time.monotonic() + COUNT_SECONDS
                    gauge.set(await connection.fetchval(sql.timer.COUNT, *owned))
        else:
            self._counts_timers_at = 0.0
            gauge.set(0)
        self._metrics.timers_due.labels(subscription=self._name).set(due)

    async def _show_sagas(self) -> None:
        if SAGA_STATE not in self._subscription.states:
            return
        async with self._context.connection() as connection:
            ((open_, oldest_seconds),) = await connection.fetch(sql.saga.OPEN, self._subscription.group)
        self._metrics.sagas_open.labels(saga=self._name).set(open_)
        self._metrics.saga_oldest_open_seconds.labels(saga=self._name).set(oldest_seconds)

    async def _show_rebuild(self) -> None:
        """Show how far a rebuild of the projection is, whichever process makes it; nothing if none runs."""
        if not isinstance(self._subscription, Projection):
            return
        named = self._context.registry.service, self._name, self._subscription.group
        async with self._context.connection() as connection:
            row = await connection.fetchrow(sql.projection.REBUILDING, *named)
        ratio, left = self._metrics.projection_rebuild_ratio, self._metrics.projection_rebuild_remaining_records
        if row is None:
            for gauge in (ratio, left):
                gauge.remove(self._name)
            return
        done, total = row["rebuilt_records"], row["rebuild_records"]
        ratio.labels(projection=self._name).set(done / total)
        left.labels(projection=self._name).set(total - done)

    async def _show_lag(self) -> dict[int, int]:
        """Show how far the claims are behind the log's ends, and what an open transaction holds back of it."""
        offsets = {number: dict(worker.next_offsets()) for number, worker in self._workers.items()}
        wanted = [partition for known in offsets.values() for partition in known]
        bounds = await self._context.log.bounds(wanted) if wanted else {}
        lags: dict[int, int] = {}
        for number, known in offsets.items():
            worker = self._workers.get(number)
            if worker is None:
                continue
            for partition, next_offset in known.items():
                if (found := bounds.get(partition)) is not None:
                    lags[number] = lags.get(number, 0) + self._show_partition(worker, partition, next_offset, found)
        self._show_claims()
        return lags

    def _show_partition(self, worker: Worker, partition: TopicPartition, next_offset: int, bounds: Bounds) -> int:
        """Show one partition; return the records that could be read."""
        behind = max(0, bounds.end - next_offset)
        held = max(0, bounds.high - max(bounds.end, next_offset))
        labels = {"subscription": self._name, "topic": partition.topic, "partition": str(partition.partition)}
        self._metrics.lag_records.labels(**labels).set(behind + held)
        self._metrics.lag_held_records.labels(**labels).set(held)
        self._metrics.next_offset.labels(**labels).set(next_offset)
        since = worker.tenure.pending_since_ms if worker.tenure is not None else None
        age = max(0.0, time.time() - since / 1000) if since is not None and behind else 0.0
        self._metrics.oldest_pending_seconds.labels(**labels).set(age)
        return behind

    def _show_claims(self) -> None:
        claims = [holding.claim for tenure in self._tenures() for holding in tenure.holdings.values()]
        for held in claims:
            labels = {"topic": held.partition.topic, "partition": str(held.partition.partition)}
            self._metrics.claim_epoch.labels(subscription=self._name, **labels).set(held.epoch)
        suspects = sum(held.is_suspect for held in claims)
        self._metrics.claim_crash_suspects.labels(subscription=self._name).set(suspects)
        running = sum(worker.phase is Phase.RUNNING for worker in self._workers.values())
        self._metrics.claims_held.labels(subscription=self._name).set(running)

    def _show_memory(self, now: float) -> None:
        metrics, name = self._metrics, self._name
        lanes: list[Lane] = [lane for tenure in self._tenures() for lane in tenure.memory.lanes.by_key.values()]
        topic = self._subscription.topics[0]
        metrics.lane_keys.labels(subscription=name, topic=topic).set(len(lanes))
        held = sum(lane.due == math.inf for lane in lanes)
        metrics.lane_held_keys.labels(subscription=name, topic=topic).set(held)
        metrics.lane_full_partitions.labels(subscription=name).set(sum(each.is_full for each in self._tenures()))
        if self._subscription.order is not None:
            metrics.lane_gap_keys.labels(subscription=name, topic=topic).set(sum(lane.is_gap for lane in lanes))
        metrics.lane_events.labels(subscription=name, topic=topic).set(sum(lane.events for lane in lanes))
        oldest = max((now - lane.since for lane in lanes), default=0.0)
        metrics.lane_oldest_seconds.labels(subscription=name, topic=topic).set(oldest)
        windows = [window for tenure in self._tenures() for window in tenure.memory.windows.values()]
        metrics.dedupe_window_ids.labels(subscription=name).set(sum(len(window) for window in windows))
        spans = [now - window.since for window in windows if window.since is not None]
        metrics.dedupe_window_seconds.labels(subscription=name).set(min(spans, default=0.0))
        relays = [holding.relay for tenure in self._tenures() for holding in tenure.holdings.values()]
        metrics.emits_pending.labels(subscription=name).set(sum(relay.pending for relay in relays))
        age = max((relay.oldest_pending_seconds for relay in relays), default=0.0)
        metrics.emits_oldest_pending_seconds.labels(subscription=name).set(age)

    def _show_outage(self) -> None:
        effects = self._subscription.effects.values()
        keys = self._context.settings.engine.outage_keys
        limiters = [self._context.limiters.of(self._subscription, each, keys) for each in effects]
        outages = [breaker.outage for breaker in (self._breaker, *(each.breaker for each in limiters))]
        met = {outage.handler for outage in outages if outage is not None}
        met |= {tenure.outage.handler for tenure in self._tenures() if tenure.outage is not None}
        names = {handler.name for handler in self._subscription.functions}
        for name in names | ({SCHEMA_REGISTRY} if self._reads_schemas else set()):
            self._metrics.handler_outage.labels(subscription=self._name, handler=name).set(name in met)

    def _show_effects(self) -> None:
        if not self._subscription.effects:
            return
        runners = [tenure.outside.runner for tenure in self._tenures()]
        labels = {"subscription": self._name}
        self._metrics.effects_pending.labels(**labels).set(sum(each.pending for each in runners))
        self._metrics.effects_in_flight.labels(**labels).set(sum(each.in_flight for each in runners))
        self._metrics.effects_waiting.labels(**labels).set(sum(each.waiting for each in runners))

    def _show_pool(self) -> None:
        metrics, pool = self._metrics, self._context.pool
        metrics.db_pool_size.labels(pool="engine").set(pool.get_max_size())
        metrics.db_pool_connections.labels(pool="engine", state="idle").set(pool.get_idle_size())
        metrics.db_pool_connections.labels(pool="engine", state="used").set(pool.get_size() - pool.get_idle_size())

    def _tenures(self) -> Iterable[Tenure]:
        return [worker.tenure for worker in self._workers.values() if worker.tenure is not None]
