"""The owner of one partition number of one subscription: claims it, reads it, applies it, lets it go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum

from headrace.emits.relay import Relay
from headrace.engine.batch import LANE_EVENTS, BatchProcessor, Fate, Source
from headrace.engine.claim import claim, release
from headrace.engine.context import EngineContext
from headrace.engine.continuity import check_bounds, check_fingerprint, resume_at
from headrace.engine.memory import PartitionMemory
from headrace.engine.replay import Replay, take_replays
from headrace.engine.report import Reporter
from headrace.errors import FencedError, HandlerError, LogMismatchError, StateError, TransportError
from headrace.handlers.subscription import Subscription
from headrace.item import Item, Outcome
from headrace.log.ports import Bounds, Reader, Record, TopicPartition
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

FETCH_SECONDS = 0.5
FETCH_BYTES = 16 * 2**20
DUE_LANES = 200
IDLE_MARK_SECONDS = 1.0
FLUSH_SECONDS = 5.0
FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS, REFUSED_SECONDS = 0.2, 10.0, 30.0
CAUTIOUS_SECONDS = 60.0
"""After an owner died, lanes run one event at a time for so long: a killer costs its own lane a run, no other."""


class Phase(Enum):
    """Where a worker stands; see the package's docstring."""

    CLAIMING = "claiming"
    RUNNING = "running"
    WAITING = "waiting"
    FENCED = "fenced"
    REFUSED = "refused"
    RELEASED = "released"


class Worker:
    """Owns partition n of every topic of a subscription while it runs."""

    def __init__(
        self, context: EngineContext, subscription: Subscription, partition: int, partitions: int, *, is_paused: bool
    ) -> None:
        self._context = context
        self._subscription = subscription
        self._partition = partition
        self.memory = PartitionMemory(context.settings.engine, subscription.states)
        self.phase = Phase.CLAIMING
        self.is_paused = is_paused
        self.last_progress = time.monotonic()
        """When the worker last got on, rested or waited for somebody else: Postgres, the log, an operator."""
        self.pending_since_ms: int | None = None
        self.sources: dict[str, Source] = {}
        self.replays: list[Replay] = []
        self._offsets: dict[TopicPartition, int] = {}
        self._reporter = Reporter(context, subscription, partition, partitions, touch=self.touch)
        self._reader: Reader | None = None
        self._processor: BatchProcessor | None = None
        self._doomed: dict[tuple[str, int], Fate] = {}
        self._hung: set[str] = set()
        """Keys whose lane's head did not return: the other keys have a turn before it runs again."""
        self._cautious_until = 0.0
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._logger = logger.bind(subscription=subscription.name, partition=partition)

    def next_offsets(self) -> dict[TopicPartition, int]:
        """Return the next offset of each claimed partition, also after the claims were let go."""
        for topic, source in self.sources.items():
            self._offsets[TopicPartition(topic, self._partition)] = source.claim.next_offset
        return self._offsets

    @property
    def topic_partitions(self) -> list[TopicPartition]:
        """The partitions that this worker owns or wants to own."""
        return [TopicPartition(topic, self._partition) for topic in self._subscription.topics]

    def start(self) -> None:
        """Begin to claim."""
        self._task = asyncio.create_task(self._run(), name=f"worker {self._subscription.name}/{self._partition}")

    async def stop(self, deadline_seconds: float) -> bool:
        """Finish the batch in flight, publish, let the claims go. Returns False where the deadline cut it short.

        Several may wait for one stop: a rebalance can come while the process drains.
        """
        self._stopping.set()
        task = self._task
        if task is None:
            return True
        done, _ = await asyncio.wait({task}, timeout=deadline_seconds)
        if not done:
            task.cancel()
            await asyncio.wait({task})
        if task.cancelled() or task.exception() is not None:  # by us, or by a restart that this stop has overtaken
            await self._release()
        return bool(done)

    async def restart(self) -> None:
        """Begin anew, whatever the worker waits for; an event whose handler does not return is parked."""
        task = self._task
        if task is None or self._stopping.is_set():
            return
        if self._processor is not None and (hung := self._processor.running) is not None:
            self._blame(hung)
        task.cancel()
        await asyncio.wait({task})
        if not self._stopping.is_set():
            self.start()

    def _blame(self, hung: Item) -> None:
        """Keep the event from holding the partition up again: one of the log is parked, one of a lane waits."""
        if hung.number:
            assert hung.key is not None
            self._hung.add(hung.key)
            return
        seconds, record = self._context.settings.engine.stuck_seconds, hung.record
        error = HandlerError(f"the handler did not return for {seconds:g} seconds.", "")
        self._doomed[record.topic, record.offset] = (Outcome.HANDLER_ERROR, error)

    def touch(self) -> None:
        """Note that the worker gets on, or waits for a good reason; see `last_progress`."""
        self.last_progress = time.monotonic()

    async def _run(self) -> None:
        delay = FIRST_DELAY_SECONDS
        while not self._stopping.is_set():
            served_at = time.monotonic()
            try:
                try:
                    await self._claim_and_serve()
                finally:
                    await self._close()
            except FencedError as error:
                self.phase = Phase.FENCED
                self._reporter.fenced(error)
                # Kafka will tell a zombie that the partition is not its own: do not take it back before.
                delay = self._context.settings.kafka.heartbeat_seconds * 1.5
            except LogMismatchError as error:
                self.phase = Phase.REFUSED
                self._context.health.not_ready(self._refusal, str(error))
                self._logger.error("partition refused", error=str(error))
                delay = REFUSED_SECONDS
            except (TransportError, StateError) as error:
                self._wait("waiting", error=str(error))
                self.touch()
            except Exception:
                self.phase = Phase.WAITING
                self._logger.exception("the worker failed and starts again")
            if self._stopping.is_set():
                break
            if self.phase is Phase.WAITING:
                is_new = time.monotonic() - served_at > MAX_DELAY_SECONDS
                delay = FIRST_DELAY_SECONDS if is_new else min(delay * 2, MAX_DELAY_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
        self.phase = Phase.RELEASED
        self._context.health.ready(self._refusal)
        await self._release()

    def _wait(self, message: str, **facts: object) -> None:
        self.phase = Phase.WAITING
        self._logger.warning(message, **facts)

    async def _claim_and_serve(self) -> None:
        self.phase = Phase.CLAIMING
        topics = ",".join(self._subscription.topics)
        with self._context.tracing.claim(self._subscription.name, topics, self._partition):
            await self._claim_all()
        self._context.health.ready(self._refusal)
        self.phase = Phase.RUNNING
        await self._serve()

    @property
    def _refusal(self) -> str:
        return f"partition_refused:{self._subscription.name}/{self._partition}"

    async def _claim_all(self) -> None:
        context, name, group = self._context, self._subscription.name, self._subscription.group
        started = time.perf_counter()
        bounds = await context.log.bounds(self.topic_partitions)
        memory = PartitionMemory(context.settings.engine, self._subscription.states)
        async with context.connection() as connection:
            for source in self.topic_partitions:
                first = bounds[source].end if self._subscription.start == "latest" else bounds[source].begin
                held = await claim(
                    connection,
                    group,
                    source,
                    context.owner,
                    first_offset=first,
                    log_end=bounds[source].end,
                    suspect_records=context.settings.engine.batch_records,
                )
                relay = Relay(
                    context.log, context.metrics, context.tracing, self._subscription, source, held.emitted_through
                )
                self.sources[source.topic] = Source(held, relay)
                await memory.load_window(connection, group, source, held.sequence)
            await memory.lanes.load(connection, group, self._partition)
        for key in self._hung & memory.lanes.by_key.keys():
            memory.lanes.by_key[key].due = time.time() + context.settings.engine.stuck_seconds
        self._hung.clear()
        self.memory = memory
        bounds = await self._check_bounds(bounds)
        for held_source in self.sources.values():
            await held_source.relay.publish_unmarked(context.connection)
        self._reader = await context.log.reader(
            {source: resume_at(self.sources[source.topic].claim, bounds[source]) for source in self.topic_partitions}
        )
        context.metrics.claim_duration_seconds.labels(subscription=name).observe(time.perf_counter() - started)
        self._logger.debug(
            "partition claimed",
            epoch={topic: source.claim.epoch for topic, source in self.sources.items()},
            next_offset={topic: source.claim.next_offset for topic, source in self.sources.items()},
        )
        if any(source.claim.is_orphaned for source in self.sources.values()):
            self._cautious_until = time.monotonic() + CAUTIOUS_SECONDS
        self.touch()

    async def _check_bounds(self, bounds: dict[TopicPartition, Bounds]) -> dict[TopicPartition, Bounds]:
        """Compare the claims with the log; look again first, since the owner before may have gone on meanwhile."""
        if any(s.claim.next_offset > bounds[s.claim.source].end for s in self.sources.values()):
            bounds = await self._context.log.bounds(self.topic_partitions)
        for source in self.sources.values():
            check_bounds(source.claim, bounds[source.claim.source])
        return bounds

    async def _serve(self) -> None:
        processor = self._processor = BatchProcessor(
            self._context, self._subscription, self._partition, self.memory, self._reporter
        )
        processor.doomed = self._doomed
        reader = self._reader
        assert reader is not None
        fetching: asyncio.Task[dict[TopicPartition, list[Record]]] | None = None
        stopping = asyncio.create_task(self._stopping.wait())
        marked_at = time.monotonic()
        try:
            while not self._stopping.is_set():
                if self.is_paused:
                    self.touch()
                    await asyncio.wait({stopping}, timeout=FETCH_SECONDS)
                    continue
                await self._settle(processor)
                await self._throttle()
                if fetching is None:
                    wait = self._memory_wait()
                    fetching = asyncio.create_task(
                        reader.fetch(self._context.settings.engine.batch_records, FETCH_BYTES, wait)
                    )
                await asyncio.wait({fetching, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not fetching.done() or self.is_paused:
                    continue
                fetched, fetching = fetching.result(), None
                for source, records in fetched.items():
                    await self._apply(processor, self.sources[source.topic], records)
                if not fetched:
                    await self._idle(processor, reader)
                    if time.monotonic() - marked_at > IDLE_MARK_SECONDS:
                        marked_at = time.monotonic()
                        await self._mark_emits()
        finally:
            self._processor = None
            stopping.cancel()
            if fetching is not None:
                fetching.cancel()
                await asyncio.wait({fetching})

    def _memory_wait(self) -> float:
        due = self.memory.lanes.seconds_to_next(time.time())
        return FETCH_SECONDS if due is None else max(0.01, min(FETCH_SECONDS, due))

    async def _apply(self, processor: BatchProcessor, source: Source, records: Sequence[Record]) -> None:
        held = source.claim
        check_fingerprint(held, records[0])
        fresh = (
            records if records[0].offset >= held.next_offset else [r for r in records if r.offset >= held.next_offset]
        )
        if not fresh:
            return
        metrics, name, topic = self._context.metrics, self._subscription.name, held.source.topic
        metrics.log_fetched_records_total.labels(subscription=name, topic=topic).inc(len(fresh))
        metrics.log_fetched_bytes_total.labels(subscription=name, topic=topic).inc(
            sum([len(record.value or b"") for record in fresh])
        )
        self.pending_since_ms = fresh[0].timestamp
        await processor.apply(source, fresh)
        self.pending_since_ms = None
        self.touch()

    async def _settle(self, processor: BatchProcessor) -> None:
        """Run due lanes, and take replays up."""
        source = next(iter(self.sources.values()))
        if self.replays:
            replays, self.replays = self.replays, []
            await take_replays(self._context, processor.reader, source, self.memory, replays)
        is_cautious = time.monotonic() < self._cautious_until  # an event of a lane may have killed the owner before
        lanes, events = (1, 1) if is_cautious else (DUE_LANES, LANE_EVENTS)
        if keys := self.memory.lanes.due(time.time(), lanes):
            await processor.retry(source, keys, events)
            self.touch()

    async def _throttle(self) -> None:
        """Wait while too many emits are not in the log yet."""
        limit = self._context.settings.engine.emits_pending
        for source in self.sources.values():
            while source.relay.pending > limit and not self._stopping.is_set():
                self.touch()
                await source.relay.flush(FETCH_SECONDS)

    async def _idle(self, processor: BatchProcessor, reader: Reader) -> None:
        """Nothing came: move over offsets without records, so that lag is zero."""
        for topic, source in self.sources.items():
            position = reader.position(TopicPartition(topic, self._partition))
            if position > source.claim.next_offset:
                await processor.skip_to(source, position)
        self.touch()

    async def _mark_emits(self) -> None:
        """Note in the claim which emits are in the log, where no batch comes along to do it."""
        for source in self.sources.values():
            held = source.claim
            through = source.relay.through(held.sequence, emits=False)
            if through > held.emitted_through:
                async with self._context.connection() as connection:
                    await held.advance(connection, held.next_offset, held.sequence, through, held.last)
                held.emitted_through = through

    async def _close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
        if self._stopping.is_set():
            for source in self.sources.values():
                await source.relay.flush(FLUSH_SECONDS)
            with suppress(StateError, FencedError):
                await self._mark_emits()
        for source in self.sources.values():
            await source.relay.stop()
        self.next_offsets()
        self.sources = {}

    async def _release(self) -> None:
        """A living process takes its name out of the claims, however the worker came to its end."""
        try:
            async with self._context.connection() as connection:
                await release(
                    connection,
                    self._subscription.group,
                    self._partition,
                    self._subscription.topics,
                    self._context.owner,
                )
        except StateError as error:
            self._logger.warning("the claims could not be let go", error=str(error))
