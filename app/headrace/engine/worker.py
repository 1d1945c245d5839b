"""The owner of one partition number of one subscription: claims it, reads it, applies it, lets it go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum

from headrace.dead_letters.store import REOPEN, SETTLE
from headrace.emits.relay import Relay
from headrace.engine.batch import BatchProcessor, Source
from headrace.engine.claim import Claim, Fingerprint, claim
from headrace.engine.commit import BATCH, Effects, write_effects
from headrace.engine.context import EngineContext
from headrace.engine.items import DEAD, Item, Outcome
from headrace.engine.lanes import Lane, plain
from headrace.engine.memory import PartitionMemory
from headrace.engine.read import RecordReader
from headrace.engine.report import Reporter
from headrace.errors import FencedError, LogMismatchError, StateError, TransportError
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Bounds, Reader, Record, StoredRecord, TopicPartition
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

FETCH_SECONDS = 0.5
DUE_LANES = 200
IDLE_MARK_SECONDS = 1.0


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
        self,
        context: EngineContext,
        subscription: Subscription,
        partition: int,
        partitions: int,
        memory: PartitionMemory,
    ) -> None:
        self._context = context
        self._subscription = subscription
        self._partition = partition
        self.memory = memory
        self.phase = Phase.CLAIMING
        self.is_paused = False
        self.last_progress = time.monotonic()
        self.pending_since_ms: int | None = None
        self.sources: dict[str, Source] = {}
        self.offsets: dict[TopicPartition, int] = {}
        """Next offsets, kept after the sources are let go."""
        self.replays: list[tuple[object, StoredRecord]] = []
        self._reporter = Reporter(context, subscription, partition, partitions)
        self._reader: Reader | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._logger = logger.bind(subscription=subscription.name, partition=partition)

    def next_offsets(self) -> dict[TopicPartition, int]:
        """Return the next offset of each claimed partition, also after the claims were let go."""
        for topic, source in self.sources.items():
            self.offsets[TopicPartition(topic, self._partition)] = source.claim.next_offset
        return self.offsets

    @property
    def topic_partitions(self) -> list[TopicPartition]:
        """The partitions that this worker owns or wants to own."""
        return [TopicPartition(topic, self._partition) for topic in self._subscription.topics]

    def start(self) -> None:
        """Begin to claim."""
        self._task = asyncio.create_task(self._run(), name=f"worker {self._subscription.name}/{self._partition}")

    async def stop(self, deadline_seconds: float) -> bool:
        """Finish the batch in flight, publish, let the claims go. Returns False where the deadline cut it short."""
        self._stopping.set()
        task, self._task = self._task, None
        if task is None:
            return True
        done, _ = await asyncio.wait({task}, timeout=deadline_seconds)
        if not done:
            task.cancel()
            await asyncio.wait({task})
            self.memory.tokens.clear()
        return bool(done)

    def restart_reader(self) -> None:
        """Make the log's client anew, from our own positions."""
        if self._task is not None:
            self.phase = Phase.WAITING

    async def _run(self) -> None:
        delay = 0.2
        while not self._stopping.is_set():
            try:
                self.phase = Phase.CLAIMING
                with self._context.tracing.claim(
                    self._subscription.name, ",".join(self._subscription.topics), self._partition
                ):
                    await self._claim_all()
                self._context.health.ready(self._refusal)
                self.phase = Phase.RUNNING
                delay = 0.2
                await self._serve()
            except FencedError as error:
                self.phase = Phase.FENCED
                self._reporter.fenced(error)
                self.memory.tokens.clear()
                delay = self._context.settings.kafka.heartbeat_seconds * 1.5
            except LogMismatchError as error:
                self.phase = Phase.REFUSED
                self._context.health.not_ready(self._refusal, str(error))
                self._logger.error("partition refused", error=str(error))
                delay = 30.0
            except (TransportError, StateError) as error:
                self.phase = Phase.WAITING
                self._logger.warning("waiting", error=str(error))
                if isinstance(error, StateError):  # of a lane or a replay: what was committed is not known
                    self.memory.tokens.clear()
                delay = min(delay * 2, 10.0)
            except asyncio.CancelledError:
                await self._close(polite=False)
                raise
            except Exception:
                self.phase = Phase.WAITING
                self._logger.exception("the worker failed and starts again")
                self.memory.tokens.clear()
                delay = min(delay * 2, 10.0)
            await self._close(polite=self.phase in (Phase.RUNNING, Phase.REFUSED))
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
        self._context.health.ready(self._refusal)

    @property
    def _refusal(self) -> str:
        return f"partition_refused:{self._subscription.name}/{self._partition}"

    async def _claim_all(self) -> None:
        context, started = self._context, time.perf_counter()
        bounds = await context.log.bounds(self.topic_partitions)
        # The memory has no tokens until it is loaded: a claim that fails halfway must not pass for one that is
        # (test_claim_that_failed_halfway_is_not_taken_for_a_loaded_one).
        known, self.memory.tokens, tokens = self.memory.tokens, {}, dict[str, object]()
        reused = bool(known)
        async with context.connection() as connection:
            for source in self.topic_partitions:
                first = bounds[source].end if self._subscription.start == "latest" else bounds[source].begin
                held = await claim(connection, self._subscription.name, source, context.owner, first)
                reused = reused and known.get(source.topic) == held.previous_token
                tokens[source.topic] = held.token
                relay = Relay(
                    context.log, context.metrics, context.tracing, held.subscription, source, held.emitted_through
                )
                self.sources[source.topic] = Source(held, relay)
                check_bounds(held, bounds[source])
            if not reused:
                await self._load(connection)
            self.memory.tokens = tokens
        for held_source in self.sources.values():
            await held_source.relay.publish_unmarked(context.connection)
        self._reader = await context.log.reader(
            {source: self._resume_at(source, bounds[source]) for source in self.topic_partitions}
        )
        context.metrics.claim_duration_seconds.labels(subscription=self._subscription.name).observe(
            time.perf_counter() - started
        )
        self._logger.debug(
            "partition claimed",
            epoch={topic: source.claim.epoch for topic, source in self.sources.items()},
            next_offset={topic: source.claim.next_offset for topic, source in self.sources.items()},
            memory="kept" if reused else "loaded",
        )
        self.last_progress = time.monotonic()

    async def _load(self, connection: object) -> None:
        fresh = PartitionMemory(self._context.settings.engine, self._subscription.states)
        for topic, source in self.sources.items():
            await fresh.load_window(
                connection,  # type: ignore[arg-type]
                self._subscription.name,
                TopicPartition(topic, self._partition),
                source.claim.sequence,
            )
        await fresh.lanes.load(connection, self._subscription.name, self._partition)  # type: ignore[arg-type]
        self.memory = fresh

    def _resume_at(self, source: TopicPartition, bounds: Bounds) -> int:
        """Start at the record before ours where it is still there, to see that it is the one we knew."""
        held = self.sources[source.topic].claim
        return held.last.offset if held.last is not None and held.last.offset >= bounds.begin else held.next_offset

    async def _serve(self) -> None:
        processor = BatchProcessor(self._context, self._subscription, self._partition, self.memory, self._reporter)
        reader = self._reader
        assert reader is not None
        fetching: asyncio.Task[dict[TopicPartition, list[Record]]] | None = None
        stopping = asyncio.create_task(self._stopping.wait())
        marked_at = time.monotonic()
        try:
            while not self._stopping.is_set() and self.phase is Phase.RUNNING:
                if self.is_paused:
                    await asyncio.wait({stopping}, timeout=FETCH_SECONDS)
                    continue
                await self._settle(processor)
                await self._throttle()
                if fetching is None:
                    wait = self._memory_wait()
                    fetching = asyncio.create_task(reader.fetch(self._context.settings.engine.batch_records, wait))
                await asyncio.wait({fetching, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not fetching.done():
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
            stopping.cancel()
            if fetching is not None:
                fetching.cancel()
                await asyncio.wait({fetching})

    def _memory_wait(self) -> float:
        due = self.memory.lanes.seconds_to_next(time.time())
        return FETCH_SECONDS if due is None else max(0.01, min(FETCH_SECONDS, due))

    async def _apply(self, processor: BatchProcessor, source: Source, records: Sequence[Record]) -> None:
        held = source.claim
        if held.last is not None and records[0].offset == held.last.offset:
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
        self.last_progress = time.monotonic()

    async def _settle(self, processor: BatchProcessor) -> None:
        """Run due lanes, and take replays up."""
        if self.replays:
            await self._take_replays()
        keys = self.memory.lanes.due(time.time(), DUE_LANES)
        if keys:
            await processor.retry(next(iter(self.sources.values())), keys)

    async def _take_replays(self) -> None:
        replays, self.replays = self.replays, []
        reader = RecordReader(self._subscription, self._context.registry.types, self._context.registry.decoders)
        source = next(iter(self.sources.values()))
        readable: dict[object, Item] = {}
        failed: list[tuple[object, str]] = []
        for identity, record in replays:
            item = reader.read([record], frozenset())[0]
            if item.outcome in DEAD or item.key is None:
                failed.append((identity, plain(str(item.error or "no handler of this subscription takes the event"))))
            else:
                readable[identity] = item
        effects = Effects(BATCH, [], source.claim.next_offset, source.claim.last)
        async with self._context.connection() as connection, connection.transaction(isolation="read_committed"):
            if failed:
                await connection.execute(REOPEN, *map(list, zip(*failed, strict=True)))
            # What was seen a moment ago may have been taken up since (test_replay_that_is_seen_twice_is_applied_once).
            open_still = {row["id"] for row in await connection.fetch(SETTLE, list(readable))}
            effects.parked = [item for identity, item in readable.items() if identity in open_still]
            effects.lanes = self._lanes_behind(effects.parked)
            through = source.relay.through(source.claim.sequence, emits=False)
            await write_effects(connection, source.claim, effects, source.claim.sequence, through)
        self.memory.lanes.by_key.update(effects.lanes)
        for item in effects.parked:
            assert item.key is not None
            self.memory.lanes.by_key[item.key].events += 1
        self.memory.lanes.next_number += len(effects.parked)

    def _lanes_behind(self, items: Sequence[Item]) -> dict[str, Lane]:
        """Number the items behind all that waits; return their keys' lanes, due at once."""
        now, lanes = time.time(), dict[str, Lane]()
        for number, item in enumerate(items, start=self.memory.lanes.next_number):
            assert item.key is not None
            item.outcome, item.number = Outcome.BEHIND_KEY, number
            kept = self.memory.lanes.by_key.get(item.key)
            lane = lanes.setdefault(item.key, kept or Lane(due=now, since=now, error="replayed"))
            lane.due = now
        return lanes

    async def _throttle(self) -> None:
        """Wait while too many emits are not in the log yet."""
        limit = self._context.settings.engine.emits_pending
        for source in self.sources.values():
            while source.relay.pending > limit and not self._stopping.is_set():
                await source.relay.flush(FETCH_SECONDS)

    async def _idle(self, processor: BatchProcessor, reader: Reader) -> None:
        """Nothing came: move over offsets without records, so that lag is zero."""
        for topic, source in self.sources.items():
            position = reader.position(TopicPartition(topic, self._partition))
            if position > source.claim.next_offset:
                await processor.skip_to(source, position)
            self.last_progress = time.monotonic()

    async def _mark_emits(self) -> None:
        """Note in the claim which emits are in the log, where no batch comes along to do it."""
        for source in self.sources.values():
            held = source.claim
            through = source.relay.through(held.sequence, emits=False)
            if through > held.emitted_through:
                async with self._context.connection() as connection:
                    await held.advance(connection, held.next_offset, held.sequence, through, held.last)
                held.emitted_through = through

    async def _close(self, *, polite: bool) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
        try:
            if polite:
                for source in self.sources.values():
                    await source.relay.flush(5.0)
                await self._release()
        finally:
            for source in self.sources.values():
                await source.relay.stop()
            self.next_offsets()
            self.sources = {}
        if self.phase is Phase.RUNNING:
            self.phase = Phase.RELEASED

    async def _release(self) -> None:
        with suppress(StateError):
            async with self._context.connection() as connection:
                for source in self.sources.values():
                    held = source.claim
                    held.emitted_through = source.relay.through(held.sequence, emits=False)
                    await held.release(connection)


def check_bounds(held: Claim, bounds: Bounds) -> None:
    """Refuse a log that ends before, or begins after, the claim's next offset. Raises: LogMismatchError."""
    topic, partition = held.source
    if held.next_offset < bounds.begin:
        raise LogMismatchError(
            f"{held.subscription}: {topic}/{partition} begins at offset {bounds.begin}, but the claim's next offset is "
            f"{held.next_offset}: {bounds.begin - held.next_offset} records are gone (retention passed, or the topic "
            f"was created again); run `headrace topics --accept {topic}` to go on at the log's beginning."
        )
    if held.next_offset > bounds.end:
        raise LogMismatchError(
            f"{held.subscription}: {topic}/{partition} ends at offset {bounds.end}, but the claim's next offset is "
            f"{held.next_offset}: the topic was created again, or its log lost its tail; "
            f"run `headrace topics --accept {topic}` to go on at the log's beginning."
        )


def check_fingerprint(held: Claim, record: Record) -> None:
    """Refuse a log that holds another record where the last one was read. Raises: LogMismatchError."""
    if held.last is not None and not held.last.matches(record):
        topic, partition = held.source
        known, found = held.last, Fingerprint.of(record)
        raise LogMismatchError(
            f"{held.subscription}: {topic}/{partition} holds another record at offset {known.offset} than the one that "
            f"was applied (time {found.timestamp} instead of {known.timestamp}): the topic was created again; "
            f"run `headrace topics --accept {topic}` to go on at the log's beginning."
        )
