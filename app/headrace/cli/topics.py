"""`headrace topics`: what the service reads and writes, and whether the log has it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from headrace.cli.output import stderr, stdout, table
from headrace.connections import current_database, started_log
from headrace.database.pool import Connection
from headrace.engine.accept import accept_topic
from headrace.errors import ConfigurationError
from headrace.loading import find_platform, load_app
from headrace.log.ports import Log, TopicInfo
from headrace.registry import Registry
from headrace.settings import Settings, load_settings
from headrace.topics import (
    KnownTopic,
    create_missing,
    known_topics,
    refuse_faults,
    remember_topics,
    topic_faults,
    topics_of,
)


def topics(
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:APP]", help="The application, such as shop.service:app.")
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOPIC",
            help="Take the topic as it is now: claims that it does not continue move to its beginning, and partitions "
            "that were added are read from theirs, once the old ones are applied.",
        ),
    ] = None,
    create: Annotated[bool, typer.Option(help="Create what is missing.")] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --accept.")] = False,
) -> None:
    """Show the topics of the service, and create missing ones; exit code 1 if one is not as it was."""
    if target is None and not accept:
        raise typer.BadParameter("name the application: headrace topics MODULE:APP.")
    if accept and not yes:
        typer.confirm(
            f"Partitions of {', '.join(accept)} that are new, or do not continue, are applied from their beginning. "
            "Continue?",
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
            window_ids = settings.engine.dedupe_window_ids
            for line in await accept_topic(connection, log, topic, window_ids=window_ids, report=stderr.print):
                stdout.print(line)
        if registry is not None:
            await _show(settings, registry, log, connection, create=create)


async def _show(settings: Settings, registry: Registry, log: Log, connection: Connection, *, create: bool) -> None:
    names = topics_of(registry)
    before = await log.topics(names)
    infos = await create_missing(log, registry, settings) if create else before
    known = await known_topics(connection, names)
    shown = table("TOPIC", "PARTITIONS", "LOG", "SUBSCRIPTIONS", "CO-PARTITIONED", "KNOWN", right=("PARTITIONS",))
    for name in names:
        info = infos.get(name)
        readers = [reader.name for reader in registry.subscriptions.values() if name in reader.topics]
        shown.add_row(
            name,
            str(info.partitions) if info is not None else "-",
            "missing" if info is None else "exists" if name in before else "created",
            ", ".join(readers) or "-",
            _co_partitioned(registry, readers, infos),
            _known(info, [each for each in known if each.topic == name]),
        )
    stdout.print(shown)
    refuse_faults(topic_faults(infos, known, registry, settings))
    if missing := [name for name in names if name not in infos]:
        raise ConfigurationError(f"missing in the log: {', '.join(missing)}; create them, or run without --no-create.")
    await remember_topics(connection, infos, known)


def _co_partitioned(registry: Registry, readers: Sequence[str], infos: dict[str, TopicInfo]) -> str:
    others = {topic for reader in readers for topic in registry.subscriptions[reader].topics}
    if len(others) < 2:
        return "-"
    return "yes" if len({infos[topic].partitions for topic in others if topic in infos}) == 1 else "NO"


def _known(info: TopicInfo | None, known: Sequence[KnownTopic]) -> str:
    if not known:
        return "new"
    for before in known:
        if info is not None and before.log_id != info.log_id:
            return "IN ANOTHER LOG"
        if info is not None and before.partitions != info.partitions:
            return f"WITH {before.partitions}"
    return "yes"
