"""How the database is opened, by a platform that starts and by the commands: migrate, connect, compare the schema."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from headrace.database.failures import classify
from headrace.database.migrate import Schema, migrate, read_schema
from headrace.database.pool import open_pool
from headrace.errors import ConfigurationError, StateUnavailableError
from headrace.settings import Settings


class SchemaTooOldError(StateUnavailableError):
    """The schema lacks a migration that this code needs; it can be used as soon as `headrace migrate` has run."""


async def open_database(
    settings: Settings,
    url: str,
    *,
    migrates: bool,
    size: int | None = None,
    report: Callable[[str], None] = lambda step: None,
    compare: Callable[[Schema], None] = lambda schema: None,
) -> asyncpg.Pool:
    """Return connections to a database whose schema this code can work on.

    `migrates` applies the `pre` migrations first; `report` gets a line for each. `compare` is called with the schema
    that was found. A schema with newer `pre` migrations is fit: they leave older code working.
    Raises: SchemaTooOldError, ConfigurationError (newer `post` migrations, and what open_pool and migrate raise),
    StateUnavailableError.
    """
    if migrates:
        await migrate(url, "pre", report)
    pool = await open_pool(settings, url, size=size)
    try:
        async with pool.acquire() as connection:
            schema = await read_schema(connection)
        compare(schema)
        if schema.newer is not None:
            raise ConfigurationError(schema.newer.sentence)
        if schema.older is not None:
            raise SchemaTooOldError(schema.older.sentence)
    except BaseException as error:
        pool.terminate()
        failure = classify(error)
        if isinstance(failure, StateUnavailableError):
            raise failure from (error if failure is not error else error.__cause__)
        raise
    return pool
