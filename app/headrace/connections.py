"""What a command, or a script that publishes, works on: the database and the log that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.database.embedded import DataDirInUseError, EmbeddedPostgres, embedded_folder
from headrace.database.opening import open_database
from headrace.database.pool import Pool
from headrace.errors import ConfigurationError
from headrace.log.opening import new_log
from headrace.log.ports import Log
from headrace.settings import MEMORY, Settings

POOL_SIZE = 5
"""The embedded log keeps a connection for itself and takes another for each question; a command has up to two."""


@asynccontextmanager
async def database_address(settings: Settings, *, advice: str = "stop it first") -> AsyncIterator[str]:
    """Yield the address of HEADRACE_DATABASE; an embedded server runs until the block ends.

    Raises: ConfigurationError (memory; a platform runs on the data directory, and `advice` says what to do then).
    """
    if not settings.is_database_embedded:
        yield settings.database_url
        return
    if settings.log == MEMORY:
        raise ConfigurationError(
            "HEADRACE_LOG=memory with HEADRACE_DATABASE=embedded keeps nothing that another process could see."
        )
    server = EmbeddedPostgres(embedded_folder(settings))
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
async def current_database(settings: Settings, *, advice: str = "stop it first") -> AsyncIterator[Pool]:
    """Yield connections to a database whose schema this code can work on; an embedded one is migrated.

    Raises: ConfigurationError (also: no embedded database yet, a newer schema), StateUnavailableError (also: an older
    schema).
    """
    is_embedded = settings.is_database_embedded
    if is_embedded and settings.log != MEMORY and not has_embedded_database(settings):
        raise ConfigurationError(
            f"there is no database in HEADRACE_DATA_DIR={settings.data_dir} yet; the first headrace run makes it."
        )
    async with database_address(settings, advice=advice) as address:
        pool = await open_database(settings, address, migrates=is_embedded, size=POOL_SIZE)
        try:
            yield pool
        finally:
            pool.terminate()


@asynccontextmanager
async def started_log(settings: Settings, pool: Pool | None) -> AsyncIterator[Log]:
    """Yield the log, connected; Kafka needs no database. Raises: TransportError, ConfigurationError."""
    log = new_log(settings, pool)
    try:
        await log.start()
        yield log
    finally:
        await log.stop()


def has_embedded_database(settings: Settings) -> bool:
    """True if the embedded database was made already."""
    return (embedded_folder(settings) / "cluster").exists()
