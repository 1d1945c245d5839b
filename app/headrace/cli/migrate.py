"""`headrace migrate`: bring the schema up to date."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from headrace.cli.output import stderr, stdout
from headrace.connections import database_address
from headrace.database.migrate import Phase, migrate, read_schema
from headrace.database.pool import connect, search_path_fault
from headrace.settings import load_settings


def migrate_schema(
    phase: Annotated[
        Phase, typer.Option(help="pre: before new code starts. post: when no older code runs any more.")
    ] = "pre",
) -> None:
    """Apply the migrations that HEADRACE_DATABASE lacks; safe to run again, and by several at once."""
    asyncio.run(_migrate(phase))


async def _migrate(phase: Phase) -> None:
    settings = load_settings()
    async with database_address(settings, advice="it migrates at its own start") as address:
        connection = await connect(address)
        try:
            applied = await migrate(connection, phase, stdout.print)
            schema = await read_schema(connection)
        finally:
            await connection.close(timeout=5)
        fault = await search_path_fault(address)
    at = ", ".join(f"{name} {number:04}" for name, number in schema.versions.items())
    stdout.print(f"the schema is at {at}" + ("" if applied else f"; there was nothing to do for {phase}"))
    if schema.unknown:
        stdout.print(f"a newer release has applied {', '.join(schema.unknown)}; this one works with it")
    if fault is not None:
        stderr.print(f"warning: {fault.sentence}")
