"""Makes the declared tables in Postgres, and adds columns that are new; refuses what only a rebuild can bring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace import sql
from headrace.database.failures import sqlstate_of
from headrace.database.pool import Connection
from headrace.errors import ConfigurationError
from headrace.tables.columns import Column, default_of
from headrace.tables.table import SCHEMA, TableType, column_definition
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.projections")

FORBIDDEN = "42501"
LONG_SECONDS = 86_400.0
"""An index of a large table takes its time."""


async def prepare_tables(connection: Connection, service: str, tables: Mapping[str, TableType]) -> None:
    """Make each projection's table what is declared. Raises: ConfigurationError, and asyncpg's errors."""
    if not tables:
        return
    try:
        async with connection.transaction():
            await connection.execute(sql.projection.LOCK)
            known = {row["name"]: row for row in await connection.fetch(sql.projection.READ, service)}
            for name, table in tables.items():
                await _prepare(connection, service, name, table, known.get(name))
    except Exception as error:
        if sqlstate_of(error) != FORBIDDEN:
            raise
        raise ConfigurationError(
            f"the tables of projections cannot be made: {str(error).rstrip('.')}; run once: grant create, usage on "
            f"schema {SCHEMA} to the role of HEADRACE_DATABASE."
        ) from error


async def create_table(connection: Connection, table: TableType, name: str) -> None:
    """Create the table under a name. Raises: asyncpg's errors."""
    await connection.execute(table.create(name))


async def create_indexes(connection: Connection, table: TableType, name: str) -> None:
    """Create the indexes that are not there. Raises: asyncpg's errors."""
    for statement in table.create_indexes(name):
        await connection.execute(statement, timeout=LONG_SECONDS)


async def is_there(connection: Connection, table: TableType) -> bool:
    """Tell whether the declared table exists. Raises: asyncpg's errors."""
    return await connection.fetchval("select to_regclass($1)", f"{SCHEMA}.{table.name}") is not None


async def _prepare(connection: Connection, service: str, name: str, table: TableType, known: Any) -> None:
    where = f"the projection {name!r}"
    if known is None or known["table_name"] != table.name:
        owner = await connection.fetchrow(sql.projection.OWNER, table.name)
        if owner is not None or await is_there(connection, table):
            whose = f"the projection {owner['name']!r} of {owner['service']!r}" if owner is not None else "nobody known"
            raise ConfigurationError(
                f"{where}: the table {SCHEMA}.{table.name} is there and belongs to {whose}; give it another name with "
                "table=."
            )
        await create_table(connection, table, table.name)
        logger.info("a projection's table was created", projection=name, table=f"{SCHEMA}.{table.name}")
        made = fingerprint(table)
    elif not await is_there(connection, table):
        if await connection.fetch(sql.claim.POSITIONS, f"{service}.{name}"):
            raise ConfigurationError(
                f"{where}: its table {SCHEMA}.{table.name} is gone, and new events alone would not fill it; build it "
                f"again with: headrace rebuild MODULE:APP {name}."
            )
        await create_table(connection, table, table.name)
        made = fingerprint(table)
    else:
        made = await _extend(connection, name, table, known["columns"])
    await create_indexes(connection, table, table.name)
    await connection.execute(sql.projection.WRITE, service, name, table.name, made)


def fingerprint(table: TableType) -> str:
    """Return what a new table is made with, as JSON: its key, and name, type and whether it may be left out by column.

    A column may be left out by code that does not know it.
    """
    columns = {each.name: [each.type, each.is_nullable, each.is_nullable] for each in table.columns.values()}
    return msgspec.json.encode({"key": table.key, "columns": columns}).decode()


async def _extend(connection: Connection, name: str, table: TableType, known: str) -> str:
    """Add the columns that are new and have a default, which rows that are there get; return what the table then is.

    Columns that the class has no more stay, if they may be left out. Raises: ConfigurationError.
    """
    made: dict[str, Any] = msgspec.json.decode(known)
    before: dict[str, list[Any]] = made["columns"]
    declared = table.columns
    wrong = [name for name, (*_, is_optional) in before.items() if name not in declared and not is_optional]
    wrong += [each.name for each in declared.values() if before.get(each.name, _of(each))[:2] != _of(each)]
    added = [each for each in declared.values() if each.name not in before]
    wrong += [each.name for each in added if not default_of(table.model, each.name)[0]]
    if wrong or tuple(made["key"]) != table.key:
        what = ", ".join(sorted(wrong)) or "key"
        raise ConfigurationError(
            f"the projection {name!r}: the table {SCHEMA}.{table.name} was made from another class ({what} changed); "
            f"give new fields a default, or build it again with this code: headrace rebuild MODULE:APP {name}."
        )
    for column in added:
        default = column.dump(default_of(table.model, column.name)[1])
        literal = "null" if default is None else await connection.fetchval("select quote_literal($1)", str(default))
        await connection.execute(
            f"alter table {SCHEMA}.{table.name} add column {column_definition(column)} default {literal}"
        )
        before[column.name] = [*_of(column), True]
        logger.info("a column was added", table=f"{SCHEMA}.{table.name}", column=column.name)
    return msgspec.json.encode(made).decode()


def _of(column: Column) -> list[Any]:
    return [column.type, column.is_nullable]


async def take_place(connection: Connection, table: TableType, new: str) -> None:
    """Let a new table have the name, the indexes' names and the grants of the declared one, which is dropped.

    Raises: asyncpg's errors; the caller's transaction then takes all back.
    """
    name = table.name
    grants = await connection.fetch(
        "select distinct grantee, privilege_type from information_schema.role_table_grants "
        "where table_schema = $1 and table_name = $2 and grantee <> current_user",
        SCHEMA,
        name,
    )
    await connection.execute(f"drop table if exists {SCHEMA}.{name}")
    await connection.execute(f"alter table {SCHEMA}.{new} rename to {name}")
    for before, after in table.index_names(new, name):
        await connection.execute(f"alter index {SCHEMA}.{before} rename to {after}")
    for row in grants:
        grantee = "public" if row["grantee"] == "PUBLIC" else f'"{row["grantee"]}"'
        await connection.execute(f"grant {row['privilege_type']} on {SCHEMA}.{name} to {grantee}")
