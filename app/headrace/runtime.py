"""A running Headrace: connects, serves, drains. The only module that names every concrete class.

```
start ─▶ management port, loop watch ─▶ connecting ─▶ connected ─▶ draining ─▶ stopped
                                          ▲    │ Postgres or the log is away: wait, try again
                                          └────┘ a setting is wrong: `fatal`; `headrace run` exits, readiness is false
```
While connecting, the HTTP door answers 503 with `Retry-After`. Once it was connected an outage leaves readiness alone:
producers get 503 with a body that explains it, which beats a pod that has vanished.

Drain, in order: readiness off, no new work, batches in flight finish, emits go out, claims are let go, the group is
left, spans and logs are flushed. Batches and emits have `HEADRACE_ENGINE_DRAIN_SECONDS`; all else takes 30 seconds at
most, where something hangs (`LIMITS`), and an embedded PostgreSQL what its last checkpoint takes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg

from headrace.database.embedded import EmbeddedPostgres
from headrace.database.installation import read_installation
from headrace.database.migrate import expected_version, migrate, schema_version
from headrace.database.pool import open_pool
from headrace.engine.consumer import Consumer
from headrace.engine.context import EngineContext
from headrace.engine.pace import Pace
from headrace.engine.topics import check_known, check_partitions, ensure_topics
from headrace.errors import ConfigurationError, StateError, StateUnavailableError, TransportError
from headrace.garbage import tune_garbage_collection
from headrace.ledger.partitions import maintain_ledger, try_to_tend
from headrace.log.embedded import EmbeddedLog
from headrace.log.embedded_retention import keep_short
from headrace.log.kafka import KafkaLog
from headrace.log.memory import MemoryLog
from headrace.log.ports import Log
from headrace.registry import Registry
from headrace.settings import EMBEDDED, MEMORY, Settings
from headrace.state.orphans import warn_of_orphans
from headrace.stopping import attempt, finish
from headrace.telemetry.health import Health
from headrace.telemetry.logging import get_logger
from headrace.telemetry.loop_monitor import LoopMonitor
from headrace.telemetry.management import ManagementServer
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.tracing import Tracing
from headrace.version import VERSION

logger = get_logger("headrace")

CONNECTING = "connecting"
HANDLER_THREADS = "handlers"
"""How the names of the threads of synchronous handlers begin."""
LIMITS = {"tasks": 2.0, "groups": 10.0, "log": 6.0, "connections": 3.0, "spans": 4.0, "postgres": 90.0}
"""Seconds that each part of a stop may take beside the batches in flight; PostgreSQL keeps to limits of its own."""


class Runtime:
    """The connections, consumers and instruments of one process."""

    def __init__(self, settings: Settings, registry: Registry, pace: Pace | None = None) -> None:
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
        self.pool: asyncpg.Pool[Any] | None = None
        self.consumers: dict[str, Consumer] = {}
        self.is_draining = False
        self.draining = asyncio.Event()
        self.connected = asyncio.Event()
        self._waiting = asyncio.Event()
        self._waits_for = ""
        self._is_up = False
        self.fatal: asyncio.Future[ConfigurationError] = asyncio.get_running_loop().create_future()
        """Set where only a person can help: `headrace run` prints it and exits."""
        self.management_port = settings.management_port
        self._management = ManagementServer(
            settings.management_host, settings.management_port, self.health, self.metrics
        )
        self._executor = ThreadPoolExecutor(settings.engine.handler_threads, thread_name_prefix=HANDLER_THREADS)
        self._postgres: EmbeddedPostgres | None = None
        self._address: str | None = None
        self._monitor: LoopMonitor | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._scratch: str | None = None

    async def start(self) -> None:
        """Open the management port and connect; returns when connected, or when waiting has begun.

        Raises: ConfigurationError (the management port is taken; a declaration or a setting is wrong).
        """
        self.registry.complete()
        check_subscriptions(self.settings, self.registry)
        self.health.not_ready(CONNECTING)
        self.management_port = self._management.start()
        logger.info("management port open", host=self.settings.management_host, port=self.management_port)
        tune_garbage_collection()
        self._monitor = LoopMonitor(
            asyncio.get_running_loop(), self.metrics, self.health, _handler_names(self.registry)
        )
        self._monitor.start()
        self.health.started = True
        connecting = asyncio.create_task(self._connect(), name="connect")
        self._tasks.append(connecting)
        ends = [asyncio.create_task(event.wait()) for event in (self.connected, self._waiting, self.draining)]
        await asyncio.wait({connecting, *ends}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        if self.fatal.done():
            raise self.fatal.result()
        self._is_up = True

    async def stop(self) -> None:
        """Drain and let go of everything; a step that fails or hangs skips no other. Never raises."""
        started = time.monotonic()
        self.begin_drain()
        await finish("own tasks", self._end_tasks(), LIMITS["tasks"])
        is_clean = await finish("drain", self._drain(), self.settings.engine.drain_seconds + LIMITS["groups"] + 2.0)
        outcome = "clean" if is_clean else "cut_short"
        if self.log is not None:
            await finish("log", self.log.stop(), LIMITS["log"])
        if self.pool is not None:
            await finish("connections", self.pool.close(), LIMITS["connections"])
        if self._postgres is not None:
            await finish("embedded PostgreSQL", self._postgres.stop(), LIMITS["postgres"])
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self.metrics.drains_total.labels(outcome=outcome).inc()
        self.metrics.drain_duration_seconds.observe(time.monotonic() - started)
        if self._is_up:
            logger.info("drained", outcome=outcome, seconds=round(time.monotonic() - started, 3))
        if self._monitor is not None:
            attempt("loop watch", self._monitor.stop)
        self._executor.shutdown(wait=False, cancel_futures=True)
        await finish("spans", asyncio.to_thread(self.tracing.shutdown, LIMITS["spans"]), LIMITS["spans"] + 1.0)
        attempt("management port", self._management.stop)

    async def _end_tasks(self) -> None:
        """End what would connect, or start consumers, while the rest is let go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _drain(self) -> bool:
        """Stop the consumers, all at once. False where one was cut short, or failed."""
        limit = self.settings.engine.drain_seconds
        with self.tracing.drain(sum(len(consumer.workers) for consumer in self.consumers.values())):
            stops = (
                finish(f"subscription {name}", consumer.stop(limit), limit + LIMITS["groups"])
                for name, consumer in self.consumers.items()
            )
            return all(await asyncio.gather(*stops))

    def begin_drain(self) -> None:
        """Turn readiness off and tell open streams to end; the first step of a stop."""
        self.is_draining = True
        self.draining.set()
        self.health.not_ready("draining")

    async def _connect(self) -> None:
        delay = 0.5
        while True:
            try:
                await self._connect_once()
                self.health.ready(CONNECTING)
                self.connected.set()
                logger.info("connected", log=self.settings.log, subscriptions=sorted(self.consumers))
                return
            except (TransportError, StateUnavailableError) as error:
                self._wait(CONNECTING, str(error))
            except (ConfigurationError, StateError) as error:
                self._fail(ConfigurationError(str(error)))
                return
            except Exception as error:
                logger.exception("connecting failed")
                self._fail(ConfigurationError(f"connecting failed: {type(error).__name__}: {error}"))
                return
            await asyncio.sleep(delay)
            delay = min(delay * 2, 10.0)

    def _wait(self, reason: str, detail: str) -> None:
        """Say once what is waited for; readiness goes on saying it."""
        self.health.not_ready(reason, detail)
        if detail != self._waits_for:
            logger.error("waiting", reason=reason, detail=detail)
        self._waits_for = detail
        self._waiting.set()

    def _fail(self, error: ConfigurationError) -> None:
        self.health.not_ready("configuration", str(error))
        if self._is_up:  # else start() raises it
            logger.error("cannot go on", error=str(error))
        if not self.fatal.done():
            self.fatal.set_result(error)

    async def _connect_once(self) -> None:
        if self.pool is None:
            self.pool = await self._open_database()
        if self.log is None:
            log = new_log(self.settings, self.pool)
            await log.start()
            self.log = log
        infos = await ensure_topics(self.log, self.registry, self.settings)
        check_partitions(infos, self.registry, self.settings)
        for info in infos.values():
            self.metrics.topic_partitions.labels(topic=info.topic).set(info.partitions)
        async with self.pool.acquire() as connection:
            installation = await read_installation(connection)
        context = EngineContext(
            self.settings,
            self.registry,
            self.log,
            self.pool,
            self.metrics,
            self.tracing,
            self.health,
            self._executor,
            owner_name(),
            installation,
            self._pace,
        )
        async with context.connection() as connection:
            await check_known(connection, infos)
            await warn_of_orphans(connection, self.registry.subscriptions.values())
        if self.settings.role == "ingest":
            return
        await try_to_tend(context.connection, self.settings.engine)
        served = [each for name, each in self.registry.subscriptions.items() if self.settings.runs(name)]
        for subscription in served:
            if subscription.name not in self.consumers:
                consumer = Consumer(context, subscription)
                self.consumers[subscription.name] = consumer
                await consumer.start()
        self._tasks.append(
            asyncio.create_task(maintain_ledger(context.connection, self.settings.engine), name="ledger")
        )
        if self.settings.log == EMBEDDED:
            cutting = keep_short(self.pool, served, self.settings.embedded_log_days)
            self._tasks.append(asyncio.create_task(cutting, name="embedded log retention"))

    async def _open_database(self) -> asyncpg.Pool[Any]:
        if self.settings.is_database_embedded:
            url = await self._embedded_url()
        else:
            url = self.settings.database_url
        if self.settings.is_database_embedded or self.settings.database_options.migrate_on_start:
            await migrate(url, "pre", lambda step: logger.info("migration", step=step))
        pool = await open_pool(self.settings, url)
        await self._wait_for_schema(pool)
        return pool

    async def _embedded_url(self) -> str:
        if self._address is None:
            folder = self.settings.data_dir / "postgres"
            if self.settings.log == MEMORY:
                self._scratch = tempfile.mkdtemp(prefix="headrace-")
                folder = Path(self._scratch) / "postgres"
            self._postgres = EmbeddedPostgres(folder)
            self._address = await self._postgres.start()
        return self._address

    async def _wait_for_schema(self, pool: asyncpg.Pool[Any]) -> None:
        """Wait, unready, until the schema is as new as this code. Raises: ConfigurationError (it is newer)."""
        expected = expected_version("pre")
        self.metrics.schema_version_expected.labels(phase="pre").set(expected)
        while True:
            async with pool.acquire() as connection:
                versions = await schema_version(connection)
            found = versions.get("pre", 0)
            self.metrics.schema_version.labels(phase="pre").set(found)
            if found > expected:
                raise ConfigurationError(
                    f"the database schema is at version {found}, this release knows {expected}; run the newer release."
                )
            if found == expected:
                self.health.ready("schema_too_old")
                return
            self._wait("schema_too_old", f"the schema is at version {found}, not {expected}: run headrace migrate.")
            await asyncio.sleep(2.0)


def check_subscriptions(settings: Settings, registry: Registry) -> None:
    """Refuse names that nobody declared: they would run nothing, in silence. Raises: ConfigurationError."""
    unknown = sorted(settings.subscription_names - registry.subscriptions.keys() - {"*"})
    if unknown:
        raise ConfigurationError(
            f"HEADRACE_SUBSCRIPTIONS names {', '.join(unknown)}, but the service declares "
            f"{', '.join(sorted(registry.subscriptions)) or 'no subscription'}; mend it, or write *."
        )


def new_log(settings: Settings, pool: asyncpg.Pool[Any] | None) -> Log:
    """Return the log that HEADRACE_LOG names, not yet started. Raises: ConfigurationError (password or TLS files)."""
    if settings.is_kafka:
        return KafkaLog(settings)
    if settings.log == MEMORY:
        return MemoryLog()
    assert pool is not None, "the embedded log lives in the database"
    return EmbeddedLog(pool)


def owner_name() -> str:
    """Return a name for this process that no other has: host, process id, start."""
    return f"{socket.gethostname()}/{os.getpid()}/{time.time_ns():x}"


def _handler_names(registry: Registry) -> dict[Any, str]:
    return {
        handler.function.__code__: handler.name
        for subscription in registry.subscriptions.values()
        for handler in subscription.handlers.values()
    }
