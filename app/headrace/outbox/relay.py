"""Publishes the rows of the outbox whose slots are this process's, in order per key, within milliseconds of the commit.

```
connect ─▶ join ─▶ ┌ take or release slots, look for replays (every 2 s)
   ▲               │ pass: read what waits ─▶ one publish for each partition of the log ─▶ delete
   └── lost ◀──────┴ sleep until woken by a commit, a NOTIFY, a publish that ended, or the 2 s
```
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

from headrace import sql
from headrace.backoff import Backoff
from headrace.cloudevents import decode_record
from headrace.database.failures import classify
from headrace.database.pool import Connection, Pool, open_session
from headrace.errors import HeadraceError, RecordTooLargeError
from headrace.ledger.dead_letters import store_refused_emit
from headrace.log.ports import Log, NewRecord, TopicPartition
from headrace.log.stored import new_record
from headrace.outbox.moving import move_replays, move_timers
from headrace.outbox.rows import first_of
from headrace.outbox.slots import Slots
from headrace.outbox.transaction import SUBSCRIPTION, group_of
from headrace.outbox.ways import Way, Ways
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.stopping import end_tasks
from headrace.telemetry.links import MAX_CALLS
from headrace.telemetry.logging import get_logger
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.trace_context import names_sampled
from headrace.telemetry.tracing import Tracing
from headrace.timers.clock import TimerClock
from headrace.timers.store import count_fired, seconds_to_next

logger = get_logger("headrace.outbox")

CHANNEL = "headrace_outbox"
TICK_SECONDS = 2.0
"""A commit whose process died before it told anybody is found after this time at the latest."""
HUNG_SECONDS = 15.0
"""A process that does nothing for this long loses its slots to others."""
STOP_SECONDS = 4.0
"""How long a stop waits for what is being published."""
MEASURE_SECONDS = 10.0
PASS_ROWS, PASS_BYTES = 1_000, 4 * 2**20
LOOK_ROWS = 5_000
"""Events, without their data, that are read at a time behind those of partitions that are in trouble."""
HELD_SECONDS, WAIT_SECONDS = 0.2, 1.0
"""When a timer is looked at again whose key others hold, and how often at most a moment is waited for them."""


class Tools(Protocol):
    """What a running platform lends."""

    settings: Settings
    registry: Registry
    metrics: Metrics
    tracing: Tracing


class OutboxRelay:
    """One process's share of a service's outbox. `address` tells where to open the session that holds the slots."""

    def __init__(self, tools: Tools, log: Log, pool: Pool, address: Callable[[], Awaitable[str]]) -> None:
        self._service = tools.registry.service
        self._settings = tools.settings
        self._metrics = tools.metrics
        self._tracing = tools.tracing
        self._log = log
        self._pool = pool
        self._address = address
        self._ways = Ways(log)
        self._slots: Slots | None = None
        self._connection: Connection | None = None
        self._asking = asyncio.Lock()
        self._due: set[int] = set()
        self._news = asyncio.Event()
        self._busy: Counter[int] = Counter()
        self._publishing: set[asyncio.Task[None]] = set()
        self._untold: set[int] = set()
        self._telling: asyncio.Task[None] | None = None
        self._timers = TimerClock()
        self._measured_at = self._waits_at = self._looks_at = 0.0
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def owned(self) -> frozenset[int]:
        """The slots that this process publishes."""
        return frozenset(self._slots.owned) if self._slots is not None else frozenset()

    def start(self) -> None:
        """Begin in the background; an outage of Postgres or the log is waited for."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="outbox relay")

    async def stop(self) -> None:
        """End, after what is committed was published; what takes longer than STOP_SECONDS is left to others."""
        self._is_stopping = True
        self._news.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_SECONDS + 1.0)
            await end_tasks({self._task}, 1.0)
        await end_tasks(self._publishing | ({self._telling} if self._telling else set()), 1.0)

    def wake(self, slots: Iterable[int]) -> None:
        """Publish what was just committed in the slots, or tell the process that owns them. Called from the loop."""
        slots, owned = set(slots), self.owned
        if slots & owned:
            self._due |= slots & owned
            self._news.set()
        if others := slots - owned:
            self._untold |= others
            if self._telling is None or self._telling.done():
                self._telling = asyncio.get_running_loop().create_task(self._tell(), name="outbox notify")

    def wake_timers(self, seconds: float) -> None:
        """A timer was set that is due in so many seconds. Called from the loop."""
        self._timers.follow(seconds)
        self._news.set()

    async def _tell(self) -> None:
        """Notify the other processes, in a transaction of its own: see the package's docstring."""
        while self._untold:
            slots, self._untold = self._untold, set()
            with suppress(Exception):  # they look for themselves after TICK_SECONDS
                await self._pool.execute(sql.outbox.NOTIFY, f"{self._service} {','.join(map(str, sorted(slots)))}")

    def _told(self, _connection: Any, _process: int, _channel: str, payload: Any) -> None:
        service, _, slots = str(payload).partition(" ")
        if service == self._service:
            self._due |= {int(slot) for slot in slots.split(",")} & self.owned
            self._news.set()

    async def _run(self) -> None:
        backoff = Backoff(0.2, 5.0)
        while not self._is_stopping:
            try:
                self._connection = await open_session(self._settings, await self._address(), idle_seconds=HUNG_SECONDS)
                await self._connection.add_listener(CHANNEL, self._told)
                self._slots = Slots(self._connection, self._service)
                await self._slots.join()
                backoff.reset()
                await self._serve(self._slots)
                if self._publishing:
                    await asyncio.wait(self._publishing, timeout=STOP_SECONDS)
                return
            except Exception as error:
                known = error if isinstance(error, HeadraceError) else classify(error)
                if known is None:
                    logger.exception("the outbox's relay failed and begins again")
                else:
                    logger.warning("the outbox waits", error=str(known))
            finally:
                self._slots = None
                if self._connection is not None:
                    self._connection.terminate()
                self._connection = None
            await asyncio.sleep(backoff.next_seconds())

    async def _serve(self, slots: Slots) -> None:
        ticks_at = 0.0
        while True:
            is_last = self._is_stopping
            self._news.clear()
            if time.monotonic() >= ticks_at:
                async with self._asking:
                    await slots.balance(self._busy.keys())
                await self._take_replays()
                await self._measure()
                await self._look_at_timers(slots)
                self._due |= slots.owned
                ticks_at = time.monotonic() + TICK_SECONDS
            if self._timers.seconds == 0:
                await self._fire(slots)
            due, self._due = self._due & slots.owned, set()
            if due:
                await self._pass(due)
            if is_last:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._timers.seconds, max(0.0, ticks_at - time.monotonic()))):
                    await self._news.wait()

    async def _look_at_timers(self, slots: Slots) -> None:
        group = group_of(self._service)
        async with self._asking:
            self._timers.learn(await seconds_to_next(self._ask(), group, sorted(slots.owned)))

    async def _fire(self, slots: Slots) -> None:
        """Move the timers that are due into the outbox, where they are published as what routes emit now."""
        async with self._asking, self._ask().transaction():
            may_wait = time.monotonic() >= self._waits_at
            moved = await move_timers(
                self._ask(), self._service, group_of(self._service), sorted(slots.owned), may_wait=may_wait
            )
        self._due |= moved.slots
        if moved.are_left and may_wait:
            self._waits_at = time.monotonic() + WAIT_SECONDS
        count_fired(self._metrics, SUBSCRIPTION, moved.fired)
        if moved.are_left and not moved.fired:
            self._timers.learn(HELD_SECONDS)
        else:
            await self._look_at_timers(slots)

    async def _pass(self, due: set[int]) -> None:
        """Read the slots from the front, and begin to publish all that may be sent now."""
        most, most_bytes = max(10, PASS_ROWS // len(due)), PASS_BYTES // len(due)
        async with self._asking:
            rows = await self._ask().fetch(sql.outbox.READ, self._service, sorted(due), most, most_bytes)
        await self._ways.learn(row["topic"] for row in rows)
        seen: set[TopicPartition] = set()  # a way takes the first rows that a pass finds for it, or none of this pass
        for partition, waiting in self._ways.sort(rows).items():
            way = self._ways.to(partition)
            if way.is_open:
                self._begin(way, partition, waiting)
            else:
                self._due |= {row["slot"] for row in waiting}  # when the publish has ended, or at the next tick
            seen.add(partition)
        if blocked := self._blocked(rows).keys():
            if time.monotonic() >= self._looks_at:
                await self._look_behind(blocked, seen)
            else:
                self._later(self._looks_at - time.monotonic(), blocked)

    def _blocked(self, rows: Sequence[Any]) -> dict[int, int]:
        """Return the slots in which all rows are of partitions in trouble, and how far they have been read."""
        last = {row["slot"]: row["number"] for row in rows}
        for partition, waiting in self._ways.sort(rows).items():
            if not self._ways.to(partition).is_in_trouble:
                for row in waiting:
                    last.pop(row["slot"], None)
        return last

    async def _look_behind(self, slots: Iterable[int], seen: set[TopicPartition]) -> None:
        """Begin to publish what waits behind events of partitions that are in trouble, however many those are.

        All pages are of one snapshot: what commits between two of them could else be taken for the first of its key.
        """
        began, after = time.monotonic(), dict.fromkeys(slots, 0)
        found: list[tuple[TopicPartition, list[Any]]] = []
        unknown: set[str] = set()
        size = 0
        async with self._asking, self._ask().transaction(isolation="repeatable_read", readonly=True):
            while after and size < PASS_BYTES:
                most = max(10, LOOK_ROWS // len(after))
                rows = await self._ask().fetch(
                    sql.outbox.LOOK_BEHIND, self._service, list(after), list(after.values()), most
                )
                unknown |= self._ways.unknown(rows)
                known = [row for row in rows if row["topic"] not in unknown]
                for partition, waiting in self._ways.sort(known).items():
                    if partition not in seen and self._ways.to(partition).is_open and size < PASS_BYTES:
                        wanted = first_of(waiting, PASS_ROWS, PASS_BYTES // 4)
                        size += sum(row["bytes"] for row in wanted)
                        numbers = [row["slot"] for row in wanted], [row["number"] for row in wanted]
                        found.append(
                            (partition, await self._ask().fetch(sql.outbox.READ_THESE, self._service, *numbers))
                        )
                    seen.add(partition)
                    self._due |= {row["slot"] for row in waiting}
                after = self._blocked(known)
        for partition, rows in found:
            self._begin(self._ways.to(partition), partition, rows)
        if unknown:
            await self._ways.learn(unknown)
        seconds = time.monotonic() - began
        self._looks_at = time.monotonic() + seconds
        if unknown or size >= PASS_BYTES:
            self._later(seconds, slots)

    def _later(self, seconds: float, slots: Iterable[int]) -> None:
        asyncio.get_running_loop().call_later(seconds, self._look_again, set(slots))

    def _begin(self, way: Way, partition: TopicPartition, rows: Sequence[Any]) -> None:
        way.is_busy = True
        slots = Counter(row["slot"] for row in rows)
        self._busy += slots
        task = asyncio.get_running_loop().create_task(self._send(way, partition, rows), name=f"outbox {partition}")
        self._publishing.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._publishing.discard(task)
            self._busy -= slots
            way.is_busy = False
            self._due |= slots.keys()  # more may wait behind what was read
            self._news.set()

        task.add_done_callback(ended)

    async def _send(self, way: Way, partition: TopicPartition, rows: Sequence[Any]) -> None:
        """Publish the rows and delete them; after a failure they wait, and only those of this partition."""
        started_ns = time.time_ns()
        try:
            await self._publish(rows)
            await self._delete(rows)
        except Exception as error:
            known = error if isinstance(error, HeadraceError) else classify(error)
            if known is None:
                logger.exception("publishing from the outbox failed and is tried again", topic=partition.topic)
            seconds = way.failed()
            self._ways.forget(partition.topic)
            self._later(seconds, {row["slot"] for row in rows})
            logger.warning(
                "events of the outbox wait",
                topic=partition.topic,
                events=len(rows),
                retry_seconds=round(seconds, 1),
                error=str(known or type(error).__name__),
            )
            return
        way.succeeded()
        if partition.partition < 0:  # it did not exist
            self._ways.forget(partition.topic)
        if self._tracing.enabled:
            sampled = (record for record in map(_record, rows) if names_sampled(record.headers))
            for record in islice(sampled, MAX_CALLS):
                self._tracing.relayed(record.topic, decode_record(record)[0], started_ns, time.time_ns())

    def _look_again(self, slots: set[int]) -> None:
        self._due |= slots
        self._news.set()

    async def _publish(self, rows: Sequence[Any]) -> None:
        """Publish the rows; one that the log refuses is found by halving and becomes a dead letter."""
        records = [_record(row) for row in rows]
        try:
            await self._log.publish(records)
        except RecordTooLargeError as error:
            if len(rows) > 1:
                half = len(rows) // 2
                await self._publish(rows[:half])
                await self._publish(rows[half:])
                return
            await self._give_up(rows[0], records[0], error)
            return
        for topic, count in Counter(record.topic for record in records).items():
            self._metrics.outbox_published_total.labels(topic=topic).inc(count)

    async def _give_up(self, row: Any, record: NewRecord, error: Exception) -> None:
        group, place = group_of(self._service), TopicPartition(record.topic, row["slot"])
        async with self._asking, self._ask().transaction():
            await store_refused_emit(self._ask(), group, place, record, error)
            await self._ask().execute(sql.outbox.DELETE, self._service, [row["slot"]], [row["number"]])
        self._metrics.outbox_refused_total.labels(topic=record.topic).inc()
        logger.error("the log refused an event of the outbox: dead letter", topic=record.topic, error=str(error))

    async def _delete(self, rows: Sequence[Any]) -> None:
        slots, numbers = [row["slot"] for row in rows], [row["number"] for row in rows]
        async with self._asking:
            await self._ask().execute(sql.outbox.DELETE, self._service, slots, numbers)

    async def _take_replays(self) -> None:
        """Put dead letters that a person wants to be replayed back into the outbox, behind what waits."""
        async with self._asking, self._ask().transaction():
            await move_replays(self._ask(), self._service, group_of(self._service))

    async def _measure(self) -> None:
        if time.monotonic() < self._measured_at + MEASURE_SECONDS:
            return
        self._measured_at = time.monotonic()
        async with self._asking:
            ((events, oldest_seconds),) = await self._ask().fetch(sql.outbox.PENDING, self._service)
        self._metrics.outbox_pending.set(events)
        self._metrics.outbox_oldest_pending_seconds.set(oldest_seconds)

    def _ask(self) -> Connection:
        """Return the session. Raises: HeadraceError while there is none."""
        if self._connection is None:
            raise HeadraceError("the outbox has no connection to Postgres.")
        return self._connection


def _record(row: Any) -> NewRecord:
    return new_record(row["topic"], row["key"], row["value"], row["headers"])
