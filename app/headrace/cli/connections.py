"""What a command works on: the database and the log that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from headrace.database.embedded import DataDirInUseError, EmbeddedPostgres
from headrace.database.migrate import expected_version, migrate, schema_version
from headrace.database.pool import open_pool
from headrace.errors import ConfigurationError
from headrace.log.ports import Log
from headrace.runtime import new_log
from headrace.settings import MEMORY, Settings

POOL_SIZE = 4
"""The embedded log keeps a connection for itself and takes another for each question; the command has one open."""


@asynccontextmanager
async def database_address(settings: Settings, *, advice: str = "stop it first") -> AsyncIterator[str]:
    """Yield the address of HEADRACE_DATABASE; an embedded server runs for as long as it is asked for.

    Raises: ConfigurationError (a platform runs on the data directory: `advice` says what to do then; memory).
    """
    if not settings.is_database_embedded:
        yield settings.database_url
        return
    if settings.log == MEMORY:
        raise ConfigurationError(
            "HEADRACE_LOG=memory with HEADRACE_DATABASE=embedded keeps nothing that another process could see."
        )
    server = EmbeddedPostgres(settings.data_dir / "postgres")
    try:
        address = await server.start()
    except DataDirInUseError as error:
        raise ConfigurationError(
            f"a platform (pid {error.holder}) runs on HEADRACE_DATA_DIR={settings.data_dir} and holds its database; "
            f"{advice}."
        ) from error
    try:
        yield address
    finally:
        await server.stop()


@asynccontextmanager
async def current_database(settings: Settings, *, advice: str = "stop it first") -> AsyncIterator[asyncpg.Pool[Any]]:
    """Yield connections to a database whose schema is this code's; an embedded one is migrated.

    Raises: ConfigurationError (also: no embedded database yet, another schema), StateUnavailableError.
    """
    if settings.is_database_embedded and settings.log != MEMORY and not has_embedded_database(settings):
        raise ConfigurationError(
            f"there is no database in HEADRACE_DATA_DIR={settings.data_dir} yet; the first headrace run makes it."
        )
    async with database_address(settings, advice=advice) as address:
        if settings.is_database_embedded:
            await migrate(address, "pre")
        pool = await open_pool(settings, address, size=POOL_SIZE)
        try:
            async with pool.acquire() as connection:
                found, expected = (await schema_version(connection))["pre"], expected_version("pre")
            if found != expected:
                what = "run headrace migrate" if found < expected else "use the newer release"
                raise ConfigurationError(
                    f"the schema of HEADRACE_DATABASE is at version {found}, and this code needs {expected}; {what}."
                )
            yield pool
        finally:
            pool.terminate()


@asynccontextmanager
async def started_log(settings: Settings, pool: asyncpg.Pool[Any] | None) -> AsyncIterator[Log]:
    """Yield the log, connected; Kafka needs no database. Raises: TransportError, ConfigurationError."""
    log = new_log(settings, pool)
    try:
        await log.start()
        yield log
    finally:
        await log.stop()


def has_embedded_database(settings: Settings) -> bool:
    """True where the embedded database was made."""
    return (settings.data_dir / "postgres" / "cluster").exists()
