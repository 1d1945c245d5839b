"""The one connection that may write to the embedded log: it holds an advisory lock for as long as it lives."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from headrace.database.failures import CALL_ERRORS, LOCK_NOT_AVAILABLE, classify, sqlstate_of
from headrace.database.pool import Pool
from headrace.errors import ConfigurationError, StateUnavailableError, TransportError

# Advisory locks are numbers; this one is the embedded log's, and database/migrate.py has another.
LOCK = int.from_bytes(b"headrace", "big")
# A process that was killed a moment ago still has its session until Postgres notices.
LOCK_TIMEOUT = "3s"


class EmbeddedSession:
    """Takes the lock when it is first needed, and again after the connection was lost."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Any = None

    async def connection(self, when_taken: Callable[[], Awaitable[None]] | None = None) -> Any:
        """Return the connection that has the lock; awaits `when_taken` after it was taken.

        Raises: TransportError, ConfigurationError (another process has the lock).
        """
        if self._connection is not None and _is_lost(self._connection):
            await self.drop()
        if self._connection is None:
            with unavailable():
                self._connection = await self._pool.acquire()
                try:
                    await self._lock()
                    if when_taken is not None:
                        await when_taken()
                except BaseException:
                    await self.drop()
                    raise
        return self._connection

    async def drop(self) -> None:
        """End the connection, and with it the lock. Never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.terminate()
            with contextlib.suppress(Exception):
                await self._pool.release(connection)

    async def close(self) -> None:
        """Release the lock. Never raises."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                await self._connection.execute("select pg_advisory_unlock($1)", LOCK)
        await self.drop()

    async def _lock(self) -> None:
        try:
            async with self._connection.transaction():
                await self._connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
                await self._connection.execute("select pg_advisory_lock($1)", LOCK)  # outlives the transaction
        except CALL_ERRORS as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise
            raise ConfigurationError(
                "another process has the embedded log of this database open: stop it, give this one its own "
                "HEADRACE_DATABASE, or let them share a log with HEADRACE_LOG=kafka://host:port."
            ) from error


def _is_lost(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except CALL_ERRORS:  # it died while idle, and the pool has taken it back already
        return True


@contextlib.contextmanager
def unavailable() -> Iterator[None]:
    """Turn what Postgres, asyncpg or the network raise in the block into a TransportError, unless it is a bug."""
    try:
        yield
    except CALL_ERRORS as error:
        failure = classify(error)
        if not isinstance(failure, StateUnavailableError):
            raise
        raise TransportError(f"the embedded log cannot be reached: {failure}") from error
