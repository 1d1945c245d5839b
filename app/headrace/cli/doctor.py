"""`headrace doctor`: is this machine, with these settings, fit to run the platform?"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from rich.text import Text

from headrace.cli.checks import (
    Check,
    check_access,
    check_application,
    check_management_port,
    check_python,
    check_settings,
)
from headrace.cli.output import harmless, stdout, table
from headrace.cli.service_checks import check_claims, check_database, check_schemas, check_topics
from headrace.connections import POOL_SIZE, database_address, has_embedded_database, started_log
from headrace.database.embedded import DataDirInUseError
from headrace.database.pool import Pool, open_pool
from headrace.errors import ConfigurationError, HeadraceError
from headrace.registry import Registry
from headrace.settings import MEMORY, Settings, load_settings

_STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red", "skip": "dim"}


def doctor(
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:APP]", help="The application, such as shop.service:app.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Check settings, database, log, topics and claims; exit code 1 if something would not work."""
    checks = asyncio.run(examine(target))
    if as_json:
        typer.echo(json.dumps([check._asdict() for check in checks], indent=2))
    else:
        _print(checks)
    if any(check.state == "FAIL" for check in checks):
        raise typer.Exit(1)


async def examine(target: str | None) -> list[Check]:
    """Return every check that can be made; if one fails, those that need it are left out."""
    checks = [check_python()]
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return [*checks, Check("FAIL", "settings", str(error))]
    registry = None
    application = []
    if target is not None:
        checked, platform = check_application(target)
        application.append(checked)
        if platform is not None:
            settings, registry = platform.settings, platform.registry
    checks += [check_settings(settings), *application, check_access(settings), check_management_port(settings)]
    checks += await check_schemas(settings, registry)
    async with AsyncExitStack() as stack:
        pool = await _examine_database(settings, stack, checks)
        await _examine_log(settings, registry, pool, stack, checks)
    return checks


async def _examine_database(settings: Settings, stack: AsyncExitStack, checks: list[Check]) -> Pool | None:
    """Return connections if the further checks can read the schema."""
    if settings.is_database_embedded and settings.log == MEMORY:
        checks.append(
            Check("skip", "database", "embedded; with HEADRACE_LOG=memory it is deleted when the process ends")
        )
        return None
    if settings.is_database_embedded and not has_embedded_database(settings):
        checks.append(Check("ok", "database", f"the first headrace run makes it in {settings.data_dir}"))
        return None
    try:
        address = await stack.enter_async_context(database_address(settings))
        pool = await open_pool(settings, address, size=POOL_SIZE)
        stack.callback(pool.terminate)
        checks += await check_database(pool, address)
    except HeadraceError as error:
        if isinstance(error.__cause__, DataDirInUseError):
            found = f"a platform (pid {error.__cause__.holder}) runs on {settings.data_dir} and has it open"
            checks.append(Check("ok", "database", found))
        else:
            checks.append(Check("FAIL", "database", str(error)))
        return None
    return pool if all(check.state != "FAIL" for check in checks if check.name == "database") else None


async def _examine_log(
    settings: Settings,
    registry: Registry | None,
    pool: Pool | None,
    stack: AsyncExitStack,
    checks: list[Check],
) -> None:
    if pool is None and not settings.is_kafka:
        checks.append(Check("skip", "log", f"{settings.log}: it lives with the database"))
        return
    try:
        log = await stack.enter_async_context(started_log(settings, pool))
        checks.append(Check("ok", "log", f"{settings.log} answers"))
        connection = await stack.enter_async_context(pool.acquire()) if pool is not None else None
        checks += [check async for check in check_topics(log, connection, registry, settings)]
        if connection is not None:
            checks += [check async for check in check_claims(log, connection, registry)]
        else:
            checks.append(Check("skip", "claims", "they are in the database"))
    except HeadraceError as error:
        checks.append(Check("FAIL", "log", str(error)))


def _print(checks: list[Check]) -> None:
    shown = table("", "", "")
    shown.show_header = False
    for check in checks:
        found = check.found if not check.advice else f"{check.found}; {check.advice}"
        lines = "\n".join(harmless(line.strip()) for line in found.split("\n"))
        shown.add_row(Text(check.state, _STYLES[check.state]), check.name, Text(lines))
    stdout.print(shown)
