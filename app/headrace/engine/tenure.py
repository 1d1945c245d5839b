"""A tenure: the time in which this process holds the claims of one partition number, and all that exists only then.

```
begin:     takeover.py: claim, window, lanes, unmarked emits ─▶ timers, calls to the outside ─▶ open a reader
serve:     ┌─▶ due timers, replays ─▶ fetch ─▶ one transaction of what was fetched ─┐   until a stop;
           └────────────────────────────────────────────────────────────────────────┘   lanes run beside it
close:     publish what was emitted, mark it, close the reader
```
After each transaction `serve` looks at what was asked of it, so that a stop, a pause and a rebalance wait for one
transaction at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from headrace.backoff import Backoff
from headrace.emits.relay import Relay
from headrace.engine.batch import BatchProcessor, Holding
from headrace.engine.breaker import Breaker, Outage, OutageError, held_up
from headrace.engine.context import EngineContext
from headrace.engine.continuity import check_fingerprint
from headrace.engine.fetches import Fetches
from headrace.engine.log_batches import LogBatches
from headrace.engine.memory import PartitionMemory
from headrace.engine.outside import Outside
from headrace.engine.policies import Policies
from headrace.engine.replays import Replays
from headrace.engine.report import Reporter
from headrace.engine.retry import Retries
from headrace.engine.run import Run
from headrace.engine.takeover import Takeover
from headrace.engine.threads import HandlerThreads
from headrace.engine.timers import DueTimers
from headrace.errors import FencedError, SchemaRegistryError, StateError, StateUnavailableError, TransportError
from headrace.handlers.subscription import Subscription
from headrace.ledger.dead_letters import Replay
from headrace.log.ports import Reader, Record, TopicPartition
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

FLUSH_SECONDS = 5.0


@dataclass
class Orders:
    """What is asked of the owner of a partition number."""

    is_paused: bool
    replays: list[Replay] = field(default_factory=list)
    """Dead letters to be replayed; the owner takes the whole list."""
    reads_due_times: bool = False
    """True if an operator asked for a retry of lanes: their due times in Postgres have changed."""
    claim_again: bool = False
    """True if the claim went back in the database: end the tenure and begin another."""
    is_fenced: bool = False
    """True if another owner has claimed, or did meanwhile: end the tenure as one whose commit was refused."""


class Tenure:
    """What exists only while the claims of partition number n of every topic of a subscription are held."""

    def __init__(
        self,
        context: EngineContext,
        subscription: Subscription,
        partition: int,
        threads: HandlerThreads,
        orders: Orders,
        touch: Callable[[], None],
        breaker: Breaker,
    ) -> None:
        self._context = context
        self._subscription = subscription
        self._partition = partition
        self._orders = orders
        self._breaker = breaker
        self._touch = touch
        self._reporter = Reporter(context, subscription, partition, touch=touch)
        policies = Policies(subscription, context.settings.engine)
        self.memory = PartitionMemory(
            context.settings.engine, subscription.states, policies.of, self._lanes_changed, subscription.order
        )
        self.holdings: dict[str, Holding] = {}
        """By topic."""
        self._claimed_at = 0.0
        processor = BatchProcessor(
            context, subscription, partition, self.memory, self._reporter, threads, policies.longest_seconds, breaker
        )
        self.processor = processor
        self._batches = LogBatches(processor)
        self._replays = Replays(processor)
        self._retries = Retries(processor, self._first_holding, self._may_run_lanes, self._is_cautious)
        self._timers = DueTimers(processor)
        self.outside = Outside(processor)
        self._reader: Reader | None = None
        self._cautious_until = 0.0
        self._ends: dict[str, int] = {}
        """Where the log of each topic ended when it was read again behind a standstill; empty once it is read."""
        self._is_abandoned = False
        self._held_up: Outage | None = None
        self._probes_lane = False
        """True if it is a lane's turn to be the probe of an outage."""
        self._logger = logger.bind(subscription=subscription.name, partition=partition)

    @property
    def running(self) -> list[Run]:
        """The runs whose handlers are being called: the batch's first, if there is one, and those of lanes."""
        return [*([self.processor.running] if self.processor.running is not None else []), *self._retries.running]

    @property
    def outage(self) -> Outage | None:
        """What its batches or lanes wait for, beside the handlers' breaker and Postgres."""
        return self._held_up or self._retries.outage

    @property
    def is_full(self) -> bool:
        """True if so much is parked that no further events are taken."""
        lanes, engine = self.memory.lanes, self._context.settings.engine
        return len(lanes.by_key) >= engine.parked_keys or lanes.events >= engine.parked_events

    @property
    def pending_since_ms(self) -> int | None:
        """When the oldest record that was fetched and not applied came into the log (Unix milliseconds)."""
        pending = [holding.pending[0].timestamp for holding in self.holdings.values() if holding.pending]
        return min(pending, default=None)

    @property
    def partitions(self) -> list[TopicPartition]:
        """The partitions that are claimed together."""
        return [TopicPartition(topic, self._partition) for topic in self._subscription.topics]

    # Taking over

    async def begin(self) -> None:
        """Take over what the former owner had and left, and open a reader.

        Raises: LogMismatchError (the log is not the one of the claim), StepRemovedError (the sagas are others),
        TransportError, StateError.
        """
        context, name, started = self._context, self._subscription.name, time.perf_counter()
        taken = await Takeover(self.processor, self.partitions, self.holdings, self._touch).take()
        self._claimed_at, self._cautious_until = taken.claimed_at, taken.cautious_until
        await self._timers.load()
        await self.outside.load()
        self._reader = await context.log.reader(taken.positions)
        context.metrics.claim_duration_seconds.labels(subscription=name).observe(time.perf_counter() - started)
        claims = {topic: holding.claim for topic, holding in self.holdings.items()}
        self._logger.debug(
            "partition claimed",
            epoch={topic: held.epoch for topic, held in claims.items()},
            next_offset={topic: held.next_offset for topic, held in claims.items()},
        )

    @property
    def seconds_since_release(self) -> float | None:
        """For how long now the former owner has not applied anything; None if it had not let go."""
        released = [holding.claim.seconds_released for holding in self.holdings.values()]
        longest = max((seconds for seconds in released if seconds is not None), default=None)
        return None if longest is None else longest + time.monotonic() - self._claimed_at

    # Serving

    async def serve(self, stopping: asyncio.Event) -> None:
        """Apply what comes until the stop, or until the claim has to be taken again.

        An outage of Postgres or of the schema registry is waited for here: what was fetched is kept, nothing uses up
        an attempt, and a stop or a pause is seen meanwhile.
        Raises: FencedError, LogMismatchError, TransportError, StateError.
        """
        assert self._reader is not None
        stopped = asyncio.create_task(stopping.wait())
        fetches = Fetches(
            self._reader, self._context.settings.engine.batch_records, self._context.settings.engine.batch_bytes
        )
        marked_at, backoff = time.monotonic(), Backoff(0.05, 5.0)
        self._retries.start()
        try:
            while not (stopping.is_set() or self._orders.claim_again or self._is_abandoned):
                if self._orders.is_fenced:
                    raise self._first_holding().claim.fenced()
                self._retries.check()
                try:
                    await self.outside.turn(next(iter(self.holdings.values())), is_paused=self._orders.is_paused)
                    if self._orders.is_paused:
                        self.memory.lanes.stand_still()
                        self._touch()
                        await asyncio.wait({stopped}, timeout=self._context.pace.fetch)
                    else:
                        await self._turn(fetches, stopped)
                    if time.monotonic() - marked_at > self._context.pace.mark:
                        marked_at = time.monotonic()
                        await self._mark_emits()
                except OutageError:  # the breaker has told it, and is open from now on
                    self._touch()
                except (StateUnavailableError, SchemaRegistryError) as error:
                    self.memory.lanes.stand_still()
                    self._held_up = held_up(error, self._held_up)
                    self._reporter.waiting(error)
                    await asyncio.wait({stopped}, timeout=backoff.next_seconds())
                else:
                    self._held_up = None
                    backoff.reset()
        finally:
            stopped.cancel()
            if stopping.is_set():
                await self._retries.stop()
            else:
                self._retries.abandon()
            await fetches.stop()

    async def _turn(self, fetches: Fetches, stopped: asyncio.Task[bool]) -> None:
        """Do what is due beside the log, then one transaction of what was fetched."""
        await self._take_up_replays()
        if (relay := next(self._throttled(), None)) is not None:
            self._touch()
            await relay.flush(self._context.pace.fetch)
            return
        if await self._timers.fire(self._first_holding()):
            self._touch()
        if self._breaker.outage is not None:
            self.memory.lanes.stand_still()
            await self._sit_out(fetches, stopped)
            return
        await self._catch_up()
        if self._is_cautious() and await self._retries.run_here():
            self._touch()
        if self.outside.is_full:
            await self.outside.wait(stopped, self._seconds_to_wait())
            self._touch()
            return
        if self.is_full:
            self._reporter.lanes_full(len(self.memory.lanes.by_key), self.memory.lanes.events)
            self._touch()
            await asyncio.wait({stopped}, timeout=self._seconds_to_wait())
            return
        holding = next((holding for holding in self.holdings.values() if holding.pending), None)
        if holding is None:
            fetched = await fetches.wait(self._seconds_to_wait(), stopped)
            if fetched is None:
                return
            if not fetched:
                await self._skip_holes()
            self._take(fetched)
        elif not self._orders.is_paused:
            await self._batches.apply(holding)
            self._touch()

    async def _sit_out(self, fetches: Fetches, stopped: asyncio.Task[bool]) -> None:
        """Wait for the end of a handler's outage: run a single event if it is this partition's turn to probe.

        The log and the lanes take turns: what is behind a failed event of its key tells nothing, its lane does.
        """
        self._touch()
        pace = min(self._context.pace.fetch, self.memory.timers.seconds)
        if self.outside.is_full:  # by other handlers' events, which tell nothing
            await self.outside.wait(stopped, pace)
            return
        if is_full := self.is_full:
            self._reporter.lanes_full(len(self.memory.lanes.by_key), self.memory.lanes.events)
        holding = next((holding for holding in self.holdings.values() if holding.pending and not is_full), None)
        probes_lane = self._retries.are_due and (holding is None or self._probes_lane)
        if holding is None and not probes_lane and not is_full:
            self._take(await fetches.wait(pace, stopped) or {})
        elif (holding is None and not probes_lane) or not self._breaker.take_probe():
            await asyncio.wait({stopped}, timeout=min(pace, self._breaker.seconds_to_probe() or pace))
        else:
            self.processor.is_careful = True
            self._probes_lane = not probes_lane
            if holding is not None and not probes_lane:
                await self._batches.apply(holding, is_probe=True)
            else:
                await self._retries.run_here(is_probe=True)
            self._touch()

    async def _catch_up(self) -> None:
        """Behind a standstill, let gaps wait until what came into the log meanwhile has been read."""
        lanes = self.memory.lanes
        if lanes.stands_still:
            self._ends = {}
            with suppress(TransportError):  # else gaps wait for as long as any
                bounds = await self._context.log.bounds(self.partitions)
                self._ends = {partition.topic: bounds[partition].end for partition in self.partitions}
            lanes.read_on()
        if self._ends and all(held.claim.next_offset >= self._ends[topic] for topic, held in self.holdings.items()):
            self._ends = {}
            lanes.caught_up()

    async def _take_up_replays(self) -> None:
        """Take replays up, and what an operator changed about lanes, also in an outage: it may have no other probe."""
        if self._orders.replays:
            topic = self._orders.replays[0].record.topic
            holding = self.holdings.get(topic) or next(iter(self.holdings.values()))
            replays = [replay for replay in self._orders.replays if replay.record.topic == topic]
            await self._replays.replay(holding, replays)
            self._orders.replays = [replay for replay in self._orders.replays if replay.record.topic != topic]
            self._touch()
        if self._orders.reads_due_times:
            await self._read_due_times()

    def _lanes_changed(self) -> None:
        self._retries.changed()

    def _first_holding(self) -> Holding:
        return next(iter(self.holdings.values()))

    def _may_run_lanes(self) -> bool:
        return not (self._orders.is_paused or self._breaker.outage is not None or any(self._throttled()))

    def _is_cautious(self) -> bool:
        return time.monotonic() < self._cautious_until

    async def _read_due_times(self) -> None:
        """Read what an operator changed, while no run writes. Raises: StateError, and then the order still stands."""
        self._orders.reads_due_times = False
        try:
            async with self.processor.turn(), self._context.connection() as connection:
                await self.memory.lanes.read_due_times(connection, self._subscription.group, self._partition)
                await self.outside.read_due_times(connection)
        except StateError:
            self._orders.reads_due_times = True
            raise

    def _throttled(self) -> Iterator[Relay]:
        """Yield the relays with so many emits that nothing may run that would add to them."""
        limit = self._context.settings.engine.emits_pending
        return (holding.relay for holding in self.holdings.values() if holding.relay.pending > limit)

    def _seconds_to_wait(self) -> float:
        most = min(self._context.pace.fetch, self.memory.timers.seconds, self.outside.seconds)
        return 0.01 if self._is_cautious() and self._retries.are_due else most

    def _take(self, fetched: dict[TopicPartition, list[Record]]) -> None:
        """Keep what was fetched to be applied, from each claim's next offset on. Raises: LogMismatchError."""
        metrics, name = self._context.metrics, self._subscription.name
        for partition, records in fetched.items():
            holding = self.holdings[partition.topic]
            held = holding.claim
            check_fingerprint(held, records[0])
            fresh = records
            if records[0].offset < held.next_offset:
                fresh = [record for record in records if record.offset >= held.next_offset]
            labels = {"subscription": name, "topic": partition.topic}
            metrics.log_fetched_records_total.labels(**labels).inc(len(fresh))
            metrics.log_fetched_bytes_total.labels(**labels).inc(sum([len(each.value or b"") for each in fresh]))
            holding.pending = fresh

    async def _skip_holes(self) -> None:
        """Nothing came: move the claims over offsets that hold no record (commit markers, compacted records)."""
        assert self._reader is not None
        for topic, holding in self.holdings.items():
            position = self._reader.position(TopicPartition(topic, self._partition))
            if position > holding.claim.next_offset:
                await self._batches.skip_to(holding, position)

    async def _mark_emits(self) -> None:
        """Note in the claim which emits are in the log, if no batch has done it."""
        for holding in self.holdings.values():
            held = holding.claim
            through = holding.relay.can_mark_through(held.sequence, emits=False)
            if through > held.emitted_through:
                async with self.processor.turn(), self._context.connection() as connection:
                    through = holding.relay.can_mark_through(held.sequence, emits=False)
                    await held.advance(connection, held.next_offset, held.sequence, through, held.last)
                    held.emitted_through = through

    # Letting go

    async def close(self, *, is_polite: bool) -> None:
        """Close the reader and stop publishing; a polite end publishes what was emitted first, and marks it."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
        await self.outside.close(next(iter(self.holdings.values()), None), is_polite=is_polite)
        if is_polite:
            for holding in self.holdings.values():
                await holding.relay.flush(FLUSH_SECONDS)
            with suppress(StateError, FencedError):
                await self._mark_emits()
        for holding in self.holdings.values():
            await holding.relay.stop()

    def abandon(self) -> None:
        """Stop what this tenure still does by itself, without waiting; its claims are fenced by the next tenure."""
        self._is_abandoned = True
        for holding in self.holdings.values():
            holding.relay.abandon()
        self.outside.abandon()
        self._retries.abandon()
