"""Opens a publisher without a server: for scripts, jobs and shells."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from headrace.connections import POOL_SIZE, database_address, started_log
from headrace.database.opening import open_database
from headrace.database.pool import Pool
from headrace.errors import ConfigurationError
from headrace.publishing.publisher import EventPublisher
from headrace.registry import Registry
from headrace.settings import EMBEDDED, MEMORY, Settings
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.tracing import Tracing
from headrace.topics import create_missing, refuse_faults, topic_faults
from headrace.version import VERSION


class Tools(NamedTuple):
    """What a publisher without a server is measured and bounded by."""

    settings: Settings
    metrics: Metrics
    tracing: Tracing


@asynccontextmanager
async def open_publisher(settings: Settings, registry: Registry) -> AsyncIterator[EventPublisher]:
    """Yield a publisher on the log that the settings name; it needs Postgres only if the log is kept there.

    Raises: ConfigurationError (the memory log, the embedded log of a running service), TransportError.
    """
    registry.complete()
    if settings.log == MEMORY:
        raise ConfigurationError(
            "HEADRACE_LOG=memory ends with the process, so nobody would get the event; name another log."
        )
    tracing = Tracing(service=registry.service, version=VERSION, system="kafka" if settings.is_kafka else "headrace")
    tools = Tools(settings, Metrics(version=VERSION, role="client"), tracing)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(_database(settings)) if settings.log == EMBEDDED else None
        log = await stack.enter_async_context(started_log(settings, pool))
        infos = await create_missing(log, registry, settings)
        refuse_faults(fault for fault in topic_faults(infos, [], registry, settings) if fault.stops_start)
        yield EventPublisher(registry, lambda: (tools, log))


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Pool]:
    advice = "publish from that platform's own code, or over HTTP: POST /events"
    async with database_address(settings, advice=advice) as address:
        pool = await open_database(settings, address, migrates=settings.is_database_embedded, size=POOL_SIZE)
        try:
            yield pool
        finally:
            pool.terminate()
