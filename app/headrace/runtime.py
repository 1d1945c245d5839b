"""A running Headrace: connects, serves, drains.

```
start ─▶ management port, loop watch ─▶ connecting ─▶ connected ─▶ draining ─▶ stopped
                                          ▲    │ Postgres or the log is away: wait, try again
                                          └────┘ a setting is wrong: `fatal`
       at any time: beyond repair (Health.fail): `failed`
```
`headrace run` waits for `fatal` and `failed` and ends the process; until then readiness is false.

While connecting, HTTP is answered 503 with `Retry-After`. After the first connection an outage leaves readiness alone:
producers get a 503 whose body explains it, which helps them more than a pod that is gone. The one exception is an
embedded PostgreSQL that died, since this process alone can bring it back.

What starts registers its end (`Stops`), and a stop unwinds them in reverse: readiness off, no new work, batches in
flight finish, emitted events are published, claims are released, the group is left, spans and logs are flushed. Batches
and emits have `HEADRACE_ENGINE_DRAIN_SECONDS`, every other step has a few seconds of its own, and an embedded
PostgreSQL has what its last checkpoint takes.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from headrace.audit.watch import keep_auditing
from headrace.backoff import Backoff
from headrace.database import early, scratch
from headrace.database.embedded import embedded_folder
from headrace.database.heartbeat import Heartbeat, process_name
from headrace.database.installation import read_installation
from headrace.database.migrate import PHASES, Schema, expected_version
from headrace.database.opening import SchemaTooOldError, open_database
from headrace.database.pool import Pool
from headrace.database.survival import keep_running
from headrace.dead_letters.retention import keep_days
from headrace.engine.consumer import Consumer
from headrace.engine.context import EngineContext
from headrace.engine.pace import Pace
from headrace.engine.policies import check_policies
from headrace.errors import ConfigurationError, StateError, StateUnavailableError, TransportError
from headrace.garbage import tune_garbage_collection
from headrace.item import Item
from headrace.ledger.partitions import maintain_ledger, try_to_tend
from headrace.log.embedded_retention import keep_short
from headrace.log.opening import new_log
from headrace.log.ports import Log
from headrace.outbox.relay import OutboxRelay
from headrace.registry import Registry, check_schema_registry, check_subscriptions
from headrace.settings import EMBEDDED, MEMORY, Settings
from headrace.state import expiry
from headrace.state.orphans import warn_of_orphans
from headrace.stopping import Stops, end_tasks, finish
from headrace.supervisor import Supervisor
from headrace.tables.schema import prepare_tables
from headrace.telemetry.health import Health
from headrace.telemetry.logging import get_logger
from headrace.telemetry.loop_monitor import LoopMonitor
from headrace.telemetry.management import open_port, pages_of
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.tracing import Tracing
from headrace.topics import prepare_topics
from headrace.version import VERSION

logger = get_logger("headrace")

CONNECTING = "connecting"
SCHEMA_TOO_OLD = "schema_too_old"
START_SECONDS = 60.0
"""How long start() waits for the first connection before it lets the application serve, unready."""
DECODING_THREADS = 4
"""Large states and batches are decoded on these; more would only wait for the interpreter's lock."""
SEARCHES = 4
"""How many questions about single events are answered at a time: each may read the log. The others wait."""
THREAD_PREFIX = "headrace-"
"""How the names of the platform's own threads begin."""
GROUP_SECONDS = 10.0
"""How long it may take to leave the consumer groups, beside the stop of the workers."""
POSTGRES_SECONDS = 90.0
"""The embedded PostgreSQL keeps to shorter limits of its own."""


class Runtime:
    """The connections, consumers and instruments of one process.

    If `ends_process`, a platform that is beyond repair ends a process that does not end by itself (`supervisor`).
    """

    def __init__(
        self, settings: Settings, registry: Registry, pace: Pace | None = None, *, ends_process: bool = False
    ) -> None:
        self.settings = settings
        self._pace = pace or Pace()
        self.registry = registry
        self.metrics = Metrics(version=VERSION, role=settings.role)
        self.tracing = Tracing(
            service=registry.service,
            version=VERSION,
            system="kafka" if settings.is_kafka else "headrace",
            server_address=settings.log.partition("://")[2] or None,
            metrics=self.metrics,
        )
        self.health = Health()
        self.log: Log | None = None
        self.pool: Pool | None = None
        self.outbox: OutboxRelay | None = None
        self.consumers: dict[str, Consumer] = {}
        self.is_draining = False
        self.draining = asyncio.Event()
        self.connected = asyncio.Event()
        self.is_clean = True
        """False once a stop had to cut batches in flight short."""
        self.loop = loop = asyncio.get_running_loop()
        self.fatal: asyncio.Future[ConfigurationError] = loop.create_future()
        """Set if only a person can help: `headrace run` prints it and exits with code 1."""
        self.failed: asyncio.Future[str] = loop.create_future()
        """Set if the process is beyond repair, to the reason: `headrace run` drains and exits with code 70."""
        self.database_url: str | None = None
        """Where the database is; None until it has started."""
        self.witness: Callable[[Item, BaseException], None] | None = None
        """Hears what handlers raise, and why an event could not be read; a test's."""
        self.searches = asyncio.Semaphore(SEARCHES)
        """Held while what became of an event is searched for."""
        self.management_port = settings.management_port
        self._ends_process = ends_process
        self._waiting = asyncio.Event()
        self._waits_for = ""
        self._is_up = False
        self._instruments = Stops()
        self._connections = Stops()
        self._opened: set[str] = set()
        self._executor = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix=f"{THREAD_PREFIX}decode")
        self._address: str | None = None
        self._owner = process_name()
        self._connecting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the management port and connect; returns when connected, or when waiting has begun.

        Raises: ConfigurationError (the management port is taken; a declaration or a setting is wrong).
        """
        self.registry.complete()
        check_subscriptions(self.settings, self.registry)
        check_schema_registry(self.settings, self.registry)
        check_policies(self.settings.engine, self.registry)
        self.health.not_ready(CONNECTING)
        tune_garbage_collection()  # before the loop is watched, since it takes a tenth of a second
        self._start_instruments()
        self.health.started = True
        self._connecting = asyncio.create_task(self._connect(), name="connect")
        ends = [asyncio.create_task(event.wait()) for event in (self.connected, self._waiting, self.draining)]
        await asyncio.wait({self._connecting, *ends}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        if self.fatal.done():
            raise self.fatal.result()
        self._is_up = True

    async def stop(self) -> None:
        """Drain, and end everything that was started; a step that fails or hangs skips no other. Never raises."""
        started = time.monotonic()
        self.begin_drain()
        if self._connecting is not None:
            await end_tasks({self._connecting}, 2.0)  # before its parts, so that none of them starts again
        self.is_clean = "drain" not in await self._connections.unwind()
        seconds, outcome = time.monotonic() - started, "clean" if self.is_clean else "cut_short"
        self.metrics.drains_total.labels(outcome=outcome).inc()
        self.metrics.drain_duration_seconds.observe(seconds)
        if self._is_up:
            logger.info("drained", outcome=outcome, seconds=round(seconds, 3))
        await self._instruments.unwind()

    def begin_drain(self) -> None:
        """Turn readiness off and tell open streams to end; the first step of a stop."""
        self.is_draining = True
        self.draining.set()
        self.health.not_ready("draining")

    @property
    def stop_limit_seconds(self) -> float:
        """The longest that a stop can take, with the requests that are answered before it."""
        requests = self.settings.engine.drain_seconds
        return requests + self._connections.limit_seconds + self._instruments.limit_seconds

    def _start_instruments(self) -> None:
        supervisor = Supervisor(
            self.health, self._note_failure, lambda: self.stop_limit_seconds, ends_process=self._ends_process
        )
        supervisor.start()
        self._instruments.push("supervisor", supervisor.drained, seconds=1)
        settings, pages = self.settings, pages_of(self.health, self.metrics)
        management, self.management_port = open_port(
            settings.management_host, settings.management_port, pages, may_move=settings.may_move_management_port
        )
        self._instruments.push("management port", management.stop, seconds=2)
        self._instruments.push("spans", lambda: asyncio.to_thread(self.tracing.shutdown, 4.0), seconds=5)
        self._instruments.push("threads", lambda: self._executor.shutdown(False, cancel_futures=True), seconds=1)
        monitor = LoopMonitor(asyncio.get_running_loop(), self.metrics, self.health, self.registry.handler_names())
        monitor.start()
        self._instruments.push("loop watch", monitor.stop, seconds=1)

    def _note_failure(self, failure: str) -> None:
        self.health.not_ready("beyond_repair", failure)
        logger.error("the process is beyond repair; it drains and ends with exit code 70", reason=failure)
        if not self.failed.done():
            self.failed.set_result(failure)

    def _tell_witness(self, item: Item, error: BaseException) -> None:
        if self.witness is not None:
            self.witness(item, error)

    async def _connect(self) -> None:
        backoff = Backoff(0.5, 10.0)
        while True:
            try:
                await self._connect_once()
                self.health.ready(CONNECTING)
                self.connected.set()
                logger.info("connected", log=self.settings.log, subscriptions=sorted(self.consumers))
                return
            except (TransportError, StateUnavailableError) as error:
                self._wait(SCHEMA_TOO_OLD if isinstance(error, SchemaTooOldError) else CONNECTING, str(error))
            except (ConfigurationError, StateError) as error:
                self._refuse(ConfigurationError(str(error)))
                return
            except Exception as error:
                logger.exception("connecting failed")
                self._refuse(ConfigurationError(f"connecting failed: {type(error).__name__}: {error}"))
                return
            await asyncio.sleep(backoff.next_seconds())

    def _wait(self, reason: str, detail: str) -> None:
        """Log once what is waited for; readiness repeats it."""
        self.health.not_ready(reason, detail)
        if detail != self._waits_for:
            logger.error("waiting", reason=reason, detail=detail)
        self._waits_for = detail
        self._waiting.set()

    def _refuse(self, error: ConfigurationError) -> None:
        self.health.not_ready("configuration", str(error))
        if self._is_up:  # else start() raises it
            logger.error("the platform cannot work until a person changes this", error=str(error))
        if not self.fatal.done():
            self.fatal.set_result(error)

    async def _connect_once(self) -> None:
        """Open what is not open yet, in order; it is called again after an outage. Raises: HeadraceError."""
        pool = await self._open_database()
        log = await self._open_log(pool)
        async with pool.acquire() as connection:
            installation = await read_installation(connection)
        context = EngineContext(
            self.settings,
            self.registry,
            log,
            pool,
            self.metrics,
            self.tracing,
            self.health,
            self._executor,
            self._owner,
            installation,
            self._pace,
            wake_outbox=self.wake_outbox,
            witness=self._tell_witness,
        )
        await self._announce(context)
        for info in await prepare_topics(log, context.connection, self.registry, self.settings):
            self.metrics.topic_partitions.labels(topic=info.topic).set(info.partitions)
        async with context.connection() as connection:
            tables = {name: each.table for name, each in self.registry.projections.items()}
            await prepare_tables(connection, self.registry.service, tables)
        self._start_outbox(log, pool)
        if self.settings.role == "ingest":
            return
        async with context.connection() as connection:
            await warn_of_orphans(connection, self.registry.subscriptions.values())
        served = [each for name, each in self.registry.subscriptions.items() if self.settings.runs(name)]
        await try_to_tend(context.connection, self.settings.engine)
        self._end_with_us("drain", self._drain, seconds=self.settings.engine.drain_seconds + GROUP_SECONDS + 2.0)
        for subscription in served:
            if subscription.name not in self.consumers:
                consumer = self.consumers[subscription.name] = Consumer(context, subscription)
                await consumer.start()
        self._keep("ledger", maintain_ledger(context.connection, self.settings.engine))
        if any(state.keeping.ttl for each in self.registry.subscriptions.values() for state in each.states.values()):
            count = expiry.counter(context.metrics, self.registry.service)
            self._keep("expired states", expiry.remove_expired(context.connection, count))
        self._keep("audit", keep_auditing(context, self.consumers))
        self._keep("dead letters", keep_days(context.connection, self.settings.dead_letter_days))
        if self.settings.log == EMBEDDED:
            self._keep("embedded log retention", keep_short(pool, served, self.settings.embedded_log_days))

    async def _announce(self, context: EngineContext) -> None:
        """Be among the living processes, which `headrace migrate --phase post` asks for. Raises: StateError."""
        heartbeat = Heartbeat(context.connection, context.owner, self.settings.role)
        if "heartbeat" not in self._opened:
            await heartbeat.start()
        self._end_with_us("heartbeat", heartbeat.stop, seconds=3)

    async def _open_database(self) -> Pool:
        if self.pool is None:
            self.pool = await open_database(
                self.settings,
                await self._database_address(),
                migrates=self.settings.is_database_embedded or self.settings.database_options.migrate_on_start,
                report=lambda step: logger.info("migration", step=step),
                compare=self._measure_schema,
            )
            self.health.ready(SCHEMA_TOO_OLD)
        self._end_with_us("connections", self.pool.close, seconds=3)
        return self.pool

    async def _open_log(self, pool: Pool) -> Log:
        if self.log is None:
            log = new_log(self.settings, pool)
            await log.start()
            self.log = log
        self._end_with_us("log", self.log.stop, seconds=6)
        return self.log

    def _start_outbox(self, log: Log, pool: Pool) -> None:
        """Publish what routes commit, in every role: whoever commits is the one who knows of it first."""
        if self.outbox is None:
            self.outbox = OutboxRelay(self, log, pool, self._database_address)
            self.outbox.start()
            self._end_with_us("outbox", self.outbox.stop, seconds=8)

    def wake_outbox(self, slots: set[int]) -> None:
        """Publish what was just committed into the outbox."""
        if self.outbox is not None:
            self.outbox.wake(slots)

    async def _database_address(self) -> str:
        embedded = self.settings.is_database_embedded
        self.database_url = await self._embedded_address() if embedded else self.settings.database_url
        return self.database_url

    async def _embedded_address(self) -> str:
        if self._address is None:
            if self.settings.log == MEMORY and scratch.lender is not None:
                self._address, give_back = await scratch.lender()
                self._end_with_us("scratch database", give_back, seconds=10)
                return self._address
            folder = embedded_folder(self.settings)
            if self.settings.log == MEMORY:
                thrown_away = tempfile.mkdtemp(prefix="headrace-")
                self._end_with_us("scratch folder", lambda: shutil.rmtree(thrown_away, ignore_errors=True), seconds=10)
                folder = Path(thrown_away) / "postgres"
            server = early.take(folder)
            self._address = await server.start()
            self._end_with_us("embedded PostgreSQL", server.stop, seconds=POSTGRES_SECONDS)
            self._keep("embedded PostgreSQL's watch", keep_running(server, self.health))
        return self._address

    def _measure_schema(self, schema: Schema) -> None:
        for phase in PHASES:
            self.metrics.schema_version.labels(phase=phase).set(schema.versions[phase])
            self.metrics.schema_version_expected.labels(phase=phase).set(expected_version(phase))

    async def _drain(self) -> bool:
        """Stop the consumers, all at once. False if one was cut short, or failed."""
        limit = self.settings.engine.drain_seconds
        with self.tracing.drain(sum(len(consumer.workers) for consumer in self.consumers.values())):
            stops = (
                finish(f"subscription {name}", consumer.stop(limit), limit + GROUP_SECONDS)
                for name, consumer in self.consumers.items()
            )
            return all(await asyncio.gather(*stops))

    def _end_with_us(self, what: str, end: Callable[[], Awaitable[object] | object], *, seconds: float) -> None:
        """Register the end of a part once, however often connecting begins."""
        if what not in self._opened:
            self._opened.add(what)
            self._connections.push(what, end, seconds=seconds)

    def _keep(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run the work until the stop."""
        task = asyncio.create_task(work, name=name)
        self._end_with_us(name, lambda: end_tasks({task}, 2.0), seconds=3)
