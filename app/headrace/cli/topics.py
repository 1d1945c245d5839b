"""`headrace topics`: what the service reads and writes, and whether the log has it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import asyncpg
import typer

from headrace.cli.connections import current_database, started_log
from headrace.cli.loading import find_platform, load_app
from headrace.cli.output import stdout, table
from headrace.engine.topics import DEFAULT_PARTITIONS, accept_topic, check_known, check_partitions, topics_of
from headrace.errors import ConfigurationError
from headrace.log.ports import Log, TopicInfo
from headrace.registry import Registry
from headrace.settings import Settings, load_settings

KNOWN = "select topic, partitions, log_id from headrace.topic"


def topics(
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:APP]", help="The application, such as shop.service:app.")
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC", help="Take the topic as it is now: claims that it does not continue begin anew."),
    ] = None,
    create: Annotated[bool, typer.Option(help="Create what is missing.")] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --accept.")] = False,
) -> None:
    """Show the topics of the service, and create missing ones; exit code 1 where one would be refused at start."""
    if target is None and not accept:
        raise typer.BadParameter("name the application: headrace topics MODULE:APP.")
    if accept and not yes:
        typer.confirm(
            f"Partitions of {', '.join(accept)} that do not continue are applied from the log's beginning. Go on?",
            abort=True,
            err=True,
        )
    settings, registry = load_settings(), None
    if target is not None:
        platform = find_platform(load_app(target))
        settings, registry = platform.settings, platform.registry
        registry.complete()
    asyncio.run(_topics(settings, registry, accept or [], create=create))


async def _topics(settings: Settings, registry: Registry | None, accepted: Sequence[str], *, create: bool) -> None:
    async with current_database(settings) as pool, started_log(settings, pool) as log, pool.acquire() as connection:
        for topic in accepted:
            for line in await accept_topic(connection, log, topic):
                stdout.print(line)
        if registry is not None:
            await _show(settings, registry, log, connection, create=create)


async def _show(settings: Settings, registry: Registry, log: Log, connection: Any, *, create: bool) -> None:
    names = topics_of(registry)
    before = await log.topics(names)
    if create:
        for name in names:
            if name not in before and name not in registry.decoders:
                await log.create(name, settings.partitions or DEFAULT_PARTITIONS)
    infos = await log.topics(names)
    known = {row["topic"]: row for row in await connection.fetch(KNOWN)}
    shown = table("TOPIC", "PARTITIONS", "LOG", "SUBSCRIPTIONS", "CO-PARTITIONED", "KNOWN", right=("PARTITIONS",))
    for name in names:
        info = infos.get(name)
        readers = [held.name for held in registry.subscriptions.values() if name in held.topics]
        shown.add_row(
            name,
            str(info.partitions) if info is not None else "-",
            "missing" if info is None else "exists" if name in before else "created",
            ", ".join(readers) or "-",
            _co_partitioned(registry, readers, infos),
            _known(info, known.get(name)),
        )
    stdout.print(shown)
    if missing := [name for name in names if name not in infos]:
        raise ConfigurationError(f"missing in the log: {', '.join(missing)}; create them, or run without --no-create.")
    check_partitions(infos, registry, settings)
    await check_known(connection, infos)


def _co_partitioned(registry: Registry, readers: Sequence[str], infos: dict[str, TopicInfo]) -> str:
    others = {topic for reader in readers for topic in registry.subscriptions[reader].topics}
    if len(others) < 2:
        return "-"
    return "yes" if len({infos[topic].partitions for topic in others if topic in infos}) == 1 else "NO"


def _known(info: TopicInfo | None, row: asyncpg.Record | None) -> str:
    if row is None:
        return "new"
    if info is not None and row["log_id"] != info.log_id:
        return "IN ANOTHER LOG"
    return "yes" if info is None or row["partitions"] == info.partitions else f"WITH {row['partitions']}"
