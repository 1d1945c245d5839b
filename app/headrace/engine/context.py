"""What every part of the engine works with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import cast

from headrace.database.failures import classify, kind_of
from headrace.database.pool import Connection, Pool
from headrace.database.session import Session
from headrace.engine.call_limits import Limiters
from headrace.engine.company import Company
from headrace.engine.group_commit import GroupCommit
from headrace.engine.group_read import GroupRead
from headrace.engine.pace import Pace
from headrace.item import Item
from headrace.log.ports import Log
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.telemetry.health import Health
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.rate_limit import OncePerMinute
from headrace.telemetry.tracing import Tracing


def _unheard(item: Item, error: BaseException) -> None: ...


@dataclass(frozen=True)
class EngineContext:
    """The connections and instruments of one process."""

    settings: Settings
    registry: Registry
    log: Log
    pool: Pool
    metrics: Metrics
    tracing: Tracing
    health: Health
    executor: ThreadPoolExecutor
    """Threads for decoding; handlers run in their subscription's own."""
    owner: str
    """This process's name in claims: host, process id, start."""
    installation: str = ""
    """Names the database to the other members of a consumer group."""
    pace: Pace = field(default=Pace())
    witness: Callable[[Item, BaseException], None] = _unheard
    """Hears what a handler raised, in its thread and with its traceback, and why a dead letter is one."""
    log_limit: OncePerMinute = field(default_factory=OncePerMinute)
    """Shared by every partition, so that the whole process logs one fault once a minute."""

    wake_outbox: Callable[[set[int]], None] = lambda slots: None
    """Publishes what a batch has written into the outbox, behind its commit."""

    limiters: Limiters = field(default_factory=Limiters)
    """Of the effects of this process."""

    @cached_property
    def group_commit(self) -> GroupCommit:
        """What commits the small batches of this process."""
        return GroupCommit(self.connection)

    @cached_property
    def group_read(self) -> GroupRead:
        """What reads the states of this process's batches."""
        return GroupRead(self.connection)

    @cached_property
    def company(self) -> Company:
        """Which runs of handlers share this process."""
        return Company()

    @cached_property
    def lane_transactions(self) -> asyncio.Semaphore:
        """The places for transactions that handlers of lanes hold open: a quarter of the pool."""
        return asyncio.Semaphore(max(1, self.settings.database_options.pool_size // 4))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection for the platform's own statements; `Session.hand_over` comes before a team's.

        Raises: StateError for what Postgres raises inside, with the driver's error as cause.
        """
        started = perf_counter()
        try:
            async with self.pool.acquire() as connection:
                self.metrics.db_pool_wait_seconds.labels(pool="engine").observe(perf_counter() - started)
                cast("Session", connection).keep_own()
                yield connection
        except Exception as error:
            failure = classify(error)
            if failure is None or failure is error:
                raise
            self.metrics.db_errors_total.labels(kind=kind_of(error)).inc()
            raise failure from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction (read committed, as every session is). Raises: as `connection`."""
        async with self.connection() as connection, connection.transaction():
            yield connection
