"""`headrace migrate`: bring the schema up to date."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from headrace.cli.connections import database_address
from headrace.cli.output import stdout
from headrace.database.migrate import Phase, migrate, schema_version
from headrace.database.pool import connect
from headrace.settings import load_settings


def migrate_schema(
    phase: Annotated[
        Phase, typer.Option(help="pre: before new code starts. post: when the code of before is gone.")
    ] = "pre",
) -> None:
    """Apply the migrations that HEADRACE_DATABASE lacks; safe to run again, and by several at once."""
    asyncio.run(_migrate(phase))


async def _migrate(phase: Phase) -> None:
    async with database_address(load_settings(), advice="it migrates at its own start") as address:
        connection = await connect(address)
        try:
            applied = await migrate(connection, phase, stdout.print)
            versions = await schema_version(connection)
        finally:
            await connection.close(timeout=5)
    at = ", ".join(f"{name} {number:04}" for name, number in versions.items())
    stdout.print(f"the schema is at {at}" + ("" if applied else f"; there was nothing to do for {phase}"))
