"""The whole application in the test's own process: its routes, its handlers, a log in memory and a real Postgres."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fastapi import FastAPI

from headrace import sql
from headrace.cloudevents import decode_record
from headrace.database.pool import Pool
from headrace.engine.tenure import Tenure
from headrace.errors import ConfigurationError, HeadraceError
from headrace.event import event_type_of
from headrace.item import Item
from headrace.loading import find_platform, load_app
from headrace.log.memory import MemoryLog
from headrace.log.ports import TopicPartition
from headrace.outbox.transaction import group_of
from headrace.platform import Headrace
from headrace.publishing.publisher import AnyEvent, Published
from headrace.runtime import Runtime
from headrace.sagas.kept import SAGA_STATE
from headrace.sagas.kept import Kept as KeptSaga
from headrace.testing.application import subscription_with_state

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Errors = type[BaseException] | tuple[type[BaseException], ...]

LOOK_SECONDS = 0.002


class Progress(NamedTuple):
    """How far everything is: the ends of the log, and the last batch of each claim."""

    ends: dict[TopicPartition, int]
    batches: dict[tuple[str, TopicPartition], int]
    """By the subscription's name in the database, and partition."""


class NotQuietError(HeadraceError):
    """Something is still under way when the time is up."""


class Service:
    """A running application, for asynchronous tests: `async with running(app) as service`."""

    def __init__(self, app: FastAPI, platform: Headrace, http: httpx.AsyncClient | None) -> None:
        self.app = app
        self.platform = platform
        self._http = http
        self._raised: list[tuple[Item, BaseException, Any]] = []
        self.runtime.witness = self._hear

    @property
    def http(self) -> httpx.AsyncClient:
        """A client of the application's routes. Raises: ConfigurationError (httpx is not installed)."""
        if self._http is None:
            raise ConfigurationError("a client of routes needs httpx: pip install httpx.")
        return self._http

    @property
    def runtime(self) -> Runtime:
        """What runs."""
        if self.platform.runtime is None:
            raise ConfigurationError("the application has ended, or has not started.")
        return self.platform.runtime

    @property
    def pool(self) -> Pool:
        """Connections to the test's database."""
        assert self.runtime.pool is not None
        return self.runtime.pool

    async def publish(self, *events: AnyEvent) -> list[Published]:
        """Publish events, as `await events.publish(...)` does."""
        return [await self.platform.publish(event) for event in events]

    async def quiet(self, *, allow: Errors = (), seconds: float = 30.0) -> None:
        """Return when all that was accepted has taken effect: events, emits, retries and timers that are due, outbox.

        Raises what a handler raised meanwhile, as it is, and an EventError for an event that could not be read, unless
        it is one of `allow`; NotQuietError when the time is up.
        """
        deadline = time.monotonic() + seconds
        while True:
            self._raise(allow)
            before = await self._progress()
            waits_for = await self._waits_for(before)
            if waits_for is None and await self._progress() == before:  # nothing happened while it was looked at
                self._raise(allow)
                return
            if time.monotonic() > deadline:
                raise NotQuietError(f"after {seconds:g} s {waits_for or 'events still come'}.")
            await asyncio.sleep(LOOK_SECONDS)

    async def move(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let so much time pass for timers and retries: what comes due is due at once, a schedule once."""
        passed = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
        registry = self.platform.registry
        groups = [each.group for each in registry.subscriptions.values()]
        await self.pool.execute(sql.timer.MOVE, [*groups, group_of(registry.service)], passed)
        await self.pool.execute(sql.lane.MOVE, groups, passed)
        await self.pool.execute(sql.effect.MOVE, groups, passed)
        for tenure in self._tenures():
            tenure.memory.timers.learn(0.0)
            tenure.outside.runner.move(passed)
            tenure.memory.lanes.move(passed)
        if self.runtime.outbox is not None:
            self.runtime.outbox.wake_timers(0.0)
        if isinstance(self.runtime.log, MemoryLog):
            self.runtime.log.wake()

    async def state(self, model: type[T], key: str, *, subscription: str | None = None) -> T:
        """Return a state as Postgres has it; a key without one has the class's first value."""
        owner = subscription_with_state(self.platform, model, subscription)
        state = next(each for each in owner.states.values() if each.model is model)
        raw = await self._read(owner.group, state.name, key)
        value: T = state.create() if raw is None else state.load(raw)[0]
        return value

    async def saga(self, name: str, key: str) -> KeptSaga:
        """Return where a saga stands."""
        owner = self.platform.registry.subscriptions[name]
        raw = await self._read(owner.group, SAGA_STATE, key)
        state = owner.states[SAGA_STATE]
        saga: KeptSaga = state.create() if raw is None else state.load(raw)[0]
        return saga

    async def published(self, model: type[T]) -> list[T]:
        """Return every event of a type that is in the log, in the order of each key."""
        event_type = event_type_of(model)
        if event_type is None:
            raise ConfigurationError(f"{model.__name__} is not an event type.")
        found: list[T] = []
        for record in await self._records(event_type.topic):
            with suppress(HeadraceError):
                envelope, data = decode_record(record)
                if envelope.type == event_type.type:
                    found.append(event_type.decode(data))
        return found

    # Inside

    def _hear(self, item: Item, error: BaseException) -> None:
        self._raised.append((item, error, error.__traceback__))

    def _raise(self, allow: Errors) -> None:
        heard, self._raised = self._raised, []
        for _, error, traceback in heard:
            if not isinstance(error, allow):
                raise error.with_traceback(traceback)

    async def _progress(self) -> Progress:
        """Return how far everything is: equal answers mean that nothing happened in between.

        A look at one part after the other can miss an event that goes from the second to the first meanwhile
        (test_event_that_goes_round_is_waited_for).
        """
        assert self.runtime.log is not None
        infos = await self.runtime.log.topics(self.platform.registry.topics)
        partitions = [
            TopicPartition(each.topic, number) for each in infos.values() for number in range(each.partitions)
        ]
        bounds = await self.runtime.log.bounds(partitions)
        rows = await self.pool.fetch(sql.claim.LAST_BATCHES, self._groups())
        batches = {
            (row["subscription"], TopicPartition(row["topic"], row["partition"])): row["sequence"] for row in rows
        }
        return Progress({partition: each.end for partition, each in bounds.items()}, batches)

    async def _waits_for(self, progress: Progress) -> str | None:
        """Return what is still to be done, as the end of a sentence, or None."""
        runtime, service = self.runtime, self.platform.registry.service
        if runtime.fatal.done():
            raise runtime.fatal.result()
        if (waiting := await self.pool.fetchval(sql.outbox.COUNT, service)) > 0:
            return f"{waiting} events wait in the outbox"
        due = await self.pool.fetchval(sql.timer.COUNT_DUE_OF, self._groups())
        if due > 0:
            return f"{due} timers are due"
        for name, consumer in runtime.consumers.items():
            subscription = self.platform.registry.subscriptions[name]
            for partition in sorted(each for each in progress.ends if each.topic in subscription.topics):
                worker = consumer.workers.get(partition.partition)
                tenure = worker.tenure if worker is not None else None
                if worker is not None and worker.orders.is_paused:
                    continue
                if tenure is None or partition.topic not in tenure.holdings:
                    return f"{name} has not taken {partition.topic}/{partition.partition} over yet"
                holding = tenure.holdings[partition.topic]
                if holding.claim.sequence < progress.batches.get((subscription.group, partition), 0):
                    return f"{name} has a batch of {partition.topic}/{partition.partition} that was just committed"
                if (lag := progress.ends[partition] - holding.claim.next_offset) > 0:
                    return f"{name} has {lag} events of {partition.topic}/{partition.partition} before it"
                if holding.relay.pending:
                    return f"{holding.relay.pending} emits of {name} are not in the log"
                if any(lane.due <= tenure.memory.lanes.now() for lane in tenure.memory.lanes.by_key.values()):
                    return f"a retry of {name} is due"
                if not tenure.outside.is_idle:
                    return f"effects of {name} are under way"
        return None

    def _groups(self) -> list[str]:
        registry = self.platform.registry
        return [*(each.group for each in registry.subscriptions.values()), group_of(registry.service)]

    def _tenures(self) -> list[Tenure]:
        consumers = self.runtime.consumers.values()
        return [worker.tenure for each in consumers for worker in each.workers.values() if worker.tenure is not None]

    async def _read(self, group: str, state: str, key: str) -> bytes | None:
        rows = await self.pool.fetch(sql.state.READ, group, state, [key])
        return rows[0]["data"].encode() if rows and (rows[0]["left_seconds"] or 1) > 0 else None

    async def _records(self, topic: str) -> Sequence[Any]:
        assert self.runtime.log is not None
        info = (await self.runtime.log.topics([topic])).get(topic)
        if info is None:
            return []
        partitions = [TopicPartition(topic, number) for number in range(info.partitions)]
        bounds = await self.runtime.log.bounds(partitions)
        reader = await self.runtime.log.reader({partition: bounds[partition].begin for partition in partitions})
        records: list[Any] = []
        try:
            while any(reader.position(partition) < bounds[partition].end for partition in partitions):
                for fetched in (await reader.fetch(10_000, 100_000_000, 1.0)).values():
                    records += fetched
        finally:
            await reader.close()
        return records


@asynccontextmanager
async def running(app: FastAPI | str) -> AsyncIterator[Service]:
    """Run the application in this event loop, as its server would; yields once it is connected."""
    app = load_app(app) if isinstance(app, str) else app
    platform = find_platform(app)
    async with app.router.lifespan_context(app):
        if platform.runtime is None:
            raise ConfigurationError("the application has started without its Headrace; enter events.lifespan(app).")
        await platform.runtime.connected.wait()
        async with _client(app) as http:
            yield Service(app, platform, http)


@asynccontextmanager
async def _client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient | None]:
    try:
        import httpx  # an extra: `pip install headrace[testing]`
    except ModuleNotFoundError:
        yield None
        return
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
        yield http
