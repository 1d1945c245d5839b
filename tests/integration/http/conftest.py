"""A platform of real parts behind real routes, without an engine: what comes in stays in the log to be looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
import pytest_asyncio
import uvicorn
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, PositiveInt

from headrace.cloudevents import decode_record
from headrace.envelope import Envelope
from headrace.event import Event
from headrace.handlers.inject import State
from headrace.http.direct import serve_directly
from headrace.http.guard import install_guard
from headrace.http.openapi import extend_openapi
from headrace.log.memory import MemoryLog
from headrace.log.ports import Log, TopicPartition
from headrace.platform import build_router
from headrace.registry import Registry
from headrace.settings import IngestSettings, Settings
from headrace.telemetry.health import Health
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.tracing import Tracing
from tests.support.waiting import until

PARTITIONS = 3
Opener = Callable[..., Awaitable["Platform"]]


class WalletCredited(Event, type="wallet.credited", topic="wallets", key="customer"):
    """Money comes in."""

    customer: str
    amount: PositiveInt


class WalletOverdrawn(Event, type="wallet.overdrawn", topic="alerts"):
    """Too much went out."""

    customer: str
    balance: int


class Wallet(BaseModel):
    balance: int = 0


def credit(event: WalletCredited, wallet: State[Wallet]) -> None:
    """The handler that the subscription needs to be one."""
    wallet.balance += event.amount


class Runtime:
    """What the routes see of `headrace.runtime.Runtime`."""

    def __init__(self, settings: Settings, registry: Registry, log: Log | None, pool: asyncpg.Pool[Any] | None) -> None:
        self.settings = settings
        self.registry = registry
        self.log = log
        self.pool = pool
        self.metrics = Metrics(version="test", role="ingest")
        self.tracing = Tracing(service=registry.service)
        self.is_draining = False
        self.draining = asyncio.Event()
        self.health = Health()


class Platform:
    """One application. `app.state.headrace` is this object, as it is a `Headrace` in production."""

    def __init__(self, settings: Settings, log: Log | None, pool: asyncpg.Pool[Any] | None, prefix: str = "") -> None:
        registry = Registry("shop")
        registry.add_subscription("wallets", "earliest").on(WalletCredited)(credit)
        registry.add_type(WalletOverdrawn)
        registry.complete()
        self.settings = settings
        self.runtime: Runtime | None = Runtime(settings, registry, log, pool)
        self.memory = log
        self.app = FastAPI()
        self.app.include_router(_routes(), prefix=prefix)
        self.app.state.headrace = self
        build_openapi = self.app.openapi
        self.app.openapi = lambda: extend_openapi(build_openapi(), registry)  # type: ignore[method-assign]
        install_guard(self.app, settings)
        serve_directly(self.app, registry.types)

    @property
    def running(self) -> Runtime:
        """The runtime, which runs."""
        assert self.runtime is not None
        return self.runtime

    def client(self, host: str = "127.0.0.1", **options: Any) -> httpx.AsyncClient:
        """A client that seems to call from the host."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(host, 50_000))
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", **options)

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value; 0 if it was never counted."""
        lines = self.running.metrics.render(None)[0].decode().splitlines()
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        for line in lines:
            series, _, value = line.rpartition(" ")
            found, _, given = series.partition("{")
            if found == f"headrace_{name}" and wanted <= set(given.rstrip("}").split(",")):
                return float(value)
        return 0.0

    async def records(self, topic: str = "wallets") -> list[tuple[Envelope, bytes, bytes | None]]:
        """Every (envelope, data, key) of the topic."""
        log = cast("MemoryLog", self.memory)
        reader = await log.reader({TopicPartition(topic, number): 0 for number in range(PARTITIONS)})
        found = await reader.fetch(10_000, 2**30, 0.0)
        await reader.close()
        return [(*decode_record(r, extensions=True), r.key) for records in found.values() for r in records]

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Serve on a real socket; yields the address."""
        server = uvicorn.Server(uvicorn.Config(self.app, port=0, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started, "uvicorn serves")
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@cache
def _routes() -> APIRouter:
    """The platform's routes, which find the platform by the application that they are called in."""
    return build_router()


@pytest_asyncio.fixture
async def platform() -> Opener:
    """Open platforms: `await platform(log=..., pool=..., keys=Path, prefix=..., **ingest settings)`."""

    async def open_platform(
        *,
        log: Log | None = None,
        pool: asyncpg.Pool[Any] | None = None,
        keys: Path | None = None,
        prefix: str = "",
        **ingest: Any,
    ) -> Platform:
        log = MemoryLog() if log is None else log
        await log.start()
        for topic in ("wallets", "alerts"):
            await log.create(topic, PARTITIONS)
        return Platform(Settings(api_keys_file=keys, ingest=IngestSettings(**ingest)), log, pool, prefix)

    return open_platform
