"""The topics that a service reads and writes: the missing ones are created, changed ones are refused.

The rules are values (`topic_faults`), so that a start and `headrace doctor` judge alike. What a topic was before is
known from the claims of its readers, or from `headrace.topic` if it has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from headrace import sql
from headrace.database.pool import Connection, ConnectionFactory
from headrace.errors import ConfigurationError
from headrace.fault import Fault
from headrace.log.ports import Log, TopicInfo
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace")

DEFAULT_PARTITIONS = 6


class KnownTopic(NamedTuple):
    """What a topic was when it was last compared."""

    topic: str
    partitions: int
    log_id: str


async def prepare_topics(
    log: Log, connect: ConnectionFactory, registry: Registry, settings: Settings
) -> list[TopicInfo]:
    """Create the service's own topics that are missing, refuse those that have changed, remember and return all.

    Partitions that were added are left to their claims, which refuse them, so that the old ones can be drained. No
    connection is held while the log is asked. Raises: HeadraceError.
    """
    infos = await create_missing(log, registry, settings)
    async with connect() as connection:
        known = await known_topics(connection, infos)
        faults = topic_faults(infos, known, registry, settings)
        refuse_faults(fault for fault in faults if fault.stops_start)
        for fault in faults:
            logger.error("a topic is not read as it is now", fault=fault.sentence)
        await remember_topics(connection, infos, known)
    return list(infos.values())


def topics_of(registry: Registry) -> list[str]:
    """Return every topic that the service reads or writes, sorted."""
    read = {topic for subscription in registry.subscriptions.values() for topic in subscription.topics}
    return sorted(read | set(registry.topics) | set(registry.decoders))


async def create_missing(log: Log, registry: Registry, settings: Settings) -> dict[str, TopicInfo]:
    """Create the service's own topics that the log lacks, and return all that exist. Raises: TransportError."""
    names = topics_of(registry)
    found = await log.topics(names)
    missing = [name for name in names if name not in found and name not in registry.decoders]
    for name in missing:
        await log.create(name, settings.partitions or DEFAULT_PARTITIONS)
    return await log.topics(names) if missing else found


async def known_topics(connection: Connection, names: Iterable[str] | None = None) -> list[KnownTopic]:
    """Return what the database knows of the topics, or of all topics if none is named."""
    rows = await connection.fetch(sql.topic.KNOWN, None if names is None else list(names))
    return [KnownTopic(row["topic"], row["partitions"], row["log_id"]) for row in rows]


def topic_faults(
    infos: Mapping[str, TopicInfo], known: Iterable[KnownTopic], registry: Registry | None, settings: Settings
) -> list[Fault]:
    """Return what keeps the platform from working on the topics, the most fundamental fault of each topic first.

    `infos` are the topics that exist; without a registry the rules about subscriptions and decoders are left out.
    """
    faults = list(_missing_faults(infos, registry)) if registry is not None else []
    before: dict[str, list[KnownTopic]] = {name: [] for name in infos}
    for each in known:
        before.setdefault(each.topic, []).append(each)
    for name in sorted(infos):
        faults += _faults_of(infos[name], before[name], settings)
    if registry is not None:
        faults += _partition_faults(infos, before, registry)
    return faults


def refuse_faults(faults: Iterable[Fault]) -> None:
    """Raise the first fault. Raises: ConfigurationError."""
    for fault in faults:
        raise ConfigurationError(fault.sentence)


def growth_advice(topic: str, before: int, now: int) -> str:
    """Return what to do about a topic that has more partitions than before, as a part of a sentence."""
    accept = f"run `headrace topics --accept {topic}` once the old ones are applied to their ends"
    if now % before == 0:
        return accept
    moves = f"{now} is no multiple of {before}, so keys also move between old partitions"
    return f"stop its producers first ({moves}), then {accept}"


async def remember_topics(connection: Connection, infos: Mapping[str, TopicInfo], known: Iterable[KnownTopic]) -> None:
    """Note the topics that are not known yet, so that the next start notices if they change."""
    names = {each.topic for each in known}
    for info in infos.values():
        if info.topic not in names:
            await connection.execute(sql.topic.REMEMBER, info.topic, info.partitions, info.log_id)


def _missing_faults(infos: Mapping[str, TopicInfo], registry: Registry) -> Iterator[Fault]:
    for name in sorted(registry.decoders):
        if name not in infos:
            yield Fault(
                f"topic {name}",
                "does not exist, and Headrace creates no topic that has a decoder, since others write it",
                "create it first",
            )


def _faults_of(info: TopicInfo, known: Iterable[KnownTopic], settings: Settings) -> Iterator[Fault]:
    what, accept = f"topic {info.topic}", f"`headrace topics --accept {info.topic}`"
    known = list(known)
    were = {info.partitions} | {each.partitions for each in known if _has_grown(info, each)}
    if settings.partitions is not None and settings.partitions not in were:
        yield Fault(
            what,
            f"has {info.partitions} partitions, but HEADRACE_PARTITIONS is {settings.partitions}",
            f"set HEADRACE_PARTITIONS={info.partitions}, or unset it",
        )
    for before in known:
        if before.log_id != info.log_id:
            yield Fault(
                what,
                f"was applied from {before.log_id}, but HEADRACE_LOG names another log than before: {info.log_id}",
                f"set HEADRACE_LOG back, or run {accept} to start at the topic's beginning",
            )
        elif _has_grown(info, before):
            yield Fault(
                what,
                f"has {info.partitions} partitions and had {before.partitions} before, so keys have moved and the new "
                "ones are not read",
                growth_advice(info.topic, before.partitions, info.partitions),
                stops_start=False,
            )
        elif before.partitions != info.partitions:
            yield Fault(
                what,
                f"has {info.partitions} partitions and had {before.partitions} before, so it was created again",
                f"run {accept} to start at its beginning",
            )


def _has_grown(info: TopicInfo, before: KnownTopic) -> bool:
    return before.log_id == info.log_id and before.partitions < info.partitions


def _partition_faults(
    infos: Mapping[str, TopicInfo], before: Mapping[str, Sequence[KnownTopic]], registry: Registry
) -> Iterator[Fault]:
    """Compare the topics of each subscription. One that has grown first is refused by its claims, until all have."""
    for subscription in registry.subscriptions.values():
        topics = [topic for topic in subscription.topics if topic in infos]
        counts = {topic: infos[topic].partitions for topic in topics}
        accepted = {min([counts[t], *(each.partitions for each in before[t])]) for t in topics}
        if len(set(counts.values())) > 1 and len(accepted) > 1:
            shown = ", ".join(f"{topic}: {count}" for topic, count in counts.items())
            yield Fault(
                f"subscription {subscription.name}",
                f"reads topics that are not co-partitioned ({shown})",
                "give them the same number of partitions, or handle them in two subscriptions",
            )
