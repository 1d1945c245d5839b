"""`headrace rebuild`: builds a projection's table again from the log, beside the one in use, and switches."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import typer

from headrace.cli.loading import Target, declared, load_platform
from headrace.cli.output import count_of, progress_bar, stdout
from headrace.connections import current_database, started_log
from headrace.errors import ConfigurationError
from headrace.platform import Headrace
from headrace.projections.projection import Projection
from headrace.rebuild.rebuild import rebuild
from headrace.settings import MEMORY


def rebuild_projection(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="PROJECTION", help="The projection, such as order-list.")],
    source: Annotated[
        Literal["log", "store"],
        typer.Option(help="Where old events come from: the log, or the streams of the event store, which keeps all."),
    ] = "log",
) -> None:
    """Build a projection's table again with the application's handlers, while the service goes on; then switch."""
    platform = load_platform(target)
    projection = declared(target, "projection", platform.registry.projections, name)
    if platform.settings.log == MEMORY:
        raise ConfigurationError("HEADRACE_LOG=memory ends with its process, so that no command can read it.")
    asyncio.run(_rebuild(platform, projection, source))


async def _rebuild(platform: Headrace, projection: Projection, source: Literal["log", "store"]) -> None:
    settings = platform.settings
    async with (
        current_database(settings) as pool,
        started_log(settings, pool) as log,
        pool.acquire() as connection,
        pool.acquire() as other,
    ):
        snapshot = other if source == "store" else None
        for each in (connection, other):
            await each.execute("set statement_timeout = 0; set idle_in_transaction_session_timeout = 0")
        with progress_bar(f"rebuilding {projection.name}") as report:
            rebuilt = await rebuild(connection, log, platform.registry, projection, settings, report, snapshot=snapshot)
    stdout.print(
        f"{projection.name}: {count_of(rebuilt.rows, 'row')} of {count_of(rebuilt.events, 'event')} in "
        f"{rebuilt.seconds:.1f} s; writers waited {rebuilt.waited_seconds:.2f} s"
    )
