"""Checks at start that the log's topics are the ones that the declarations and the claims speak of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.database.pool import Connection
from headrace.engine.claim import Fingerprint
from headrace.errors import ConfigurationError
from headrace.log.ports import Bounds, Log, TopicInfo, TopicPartition
from headrace.registry import Registry
from headrace.settings import Settings

DEFAULT_PARTITIONS = 6
FETCH_SECONDS = 5.0
FETCH_BYTES = 16 * 2**20

KNOWN = "select topic, partitions, log_id from headrace.topic where topic = any($1::text[])"
REMEMBER = """
insert into headrace.topic (topic, partitions, log_id) values ($1, $2, $3)
on conflict (topic) do update set partitions = excluded.partitions, log_id = excluded.log_id, seen_at = now()
"""
RESET = """
update headrace.claim set epoch = epoch + 1, token = gen_random_uuid(), owner = null, next_offset = $3,
       claimed_offset = $3, last_offset = null, last_timestamp = null, last_crc = null, crashes = 0
where topic = $1 and partition = $2 and subscription = $4
"""
CLAIMS = """
select subscription, partition, next_offset, last_offset, last_timestamp, last_crc from headrace.claim
where topic = $1 order by partition, subscription for update
"""
FORGET = "delete from headrace.claim where topic = $1 and partition >= $2"


def topics_of(registry: Registry) -> list[str]:
    """Return every topic that the service reads or writes, sorted."""
    read = {topic for subscription in registry.subscriptions.values() for topic in subscription.topics}
    return sorted(read | set(registry.topics) | set(registry.decoders))


async def ensure_topics(log: Log, registry: Registry, settings: Settings) -> dict[str, TopicInfo]:
    """Create what is missing; return all. Raises: ConfigurationError (a foreign topic is missing), TransportError."""
    names = topics_of(registry)
    found = await log.topics(names)
    for name in names:
        if name in found:
            continue
        if name in registry.decoders:
            raise ConfigurationError(
                f"the foreign topic {name!r}, which has a decoder, does not exist; create it first."
            )
        await log.create(name, settings.partitions or DEFAULT_PARTITIONS)
    return await log.topics(names)


def check_partitions(infos: Mapping[str, TopicInfo], registry: Registry, settings: Settings) -> None:
    """Refuse counts that differ from the setting, or between topics of one subscription. Raises: ConfigurationError."""
    for info in infos.values():
        if settings.partitions is not None and info.partitions != settings.partitions:
            raise ConfigurationError(
                f"topic {info.topic!r} has {info.partitions} partitions, but HEADRACE_PARTITIONS is "
                f"{settings.partitions}; set HEADRACE_PARTITIONS={info.partitions}, or unset it."
            )
    for subscription in registry.subscriptions.values():
        counts = {topic: infos[topic].partitions for topic in subscription.topics}
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{topic}: {count}" for topic, count in counts.items())
            raise ConfigurationError(
                f"the topics of subscription {subscription.name!r} are not co-partitioned ({shown}); "
                "give them the same number of partitions, or handle them in two subscriptions."
            )


async def check_known(connection: Connection, infos: Mapping[str, TopicInfo]) -> None:
    """Refuse a topic that is not the one known from before; remember new ones. Raises: ConfigurationError."""
    known = {row["topic"]: row for row in await connection.fetch(KNOWN, list(infos))}
    for topic, info in infos.items():
        before = known.get(topic)
        if before is None:
            await connection.execute(REMEMBER, topic, info.partitions, info.log_id)
        elif before["log_id"] != info.log_id:
            raise ConfigurationError(
                f"HEADRACE_LOG names another log than before: topic {topic!r} was applied from {before['log_id']}, "
                f"this is {info.log_id}; set HEADRACE_LOG back, or run `headrace topics --accept {topic}` "
                "to start at its beginning."
            )
        elif before["partitions"] != info.partitions:
            raise ConfigurationError(
                f"topic {topic!r} has {info.partitions} partitions and had {before['partitions']} before, so keys have "
                f"moved; drain it first, then run `headrace topics --accept {topic}`."
            )


async def accept_topic(connection: Connection, log: Log, topic: str) -> list[str]:
    """Take the topic as it is now; claims that it does not continue go to its beginning, the others stay.

    Returns what was done, a line for each claim that moved.
    """
    infos = await log.topics([topic])
    if topic not in infos:
        raise ConfigurationError(f"topic {topic!r} does not exist in HEADRACE_LOG; create it with `headrace topics`.")
    info = infos[topic]
    bounds = await log.bounds([TopicPartition(topic, number) for number in range(info.partitions)])
    done = []
    async with connection.transaction():
        known = await connection.fetchrow(KNOWN, [topic])
        is_same_log = known is not None and known["log_id"] == info.log_id
        await connection.execute(REMEMBER, topic, info.partitions, info.log_id)
        await connection.execute(FORGET, topic, info.partitions)
        for row in await connection.fetch(CLAIMS, topic):
            source = TopicPartition(topic, row["partition"])
            if is_same_log and await _continues(log, source, bounds[source], dict(row)):
                continue
            begin = bounds[source].begin
            await connection.execute(RESET, topic, source.partition, begin, row["subscription"])
            done.append(f"{row['subscription']}: {topic}/{source.partition} goes on at offset {begin}")
    return done


async def _continues(log: Log, source: TopicPartition, held: Bounds, claim: Mapping[str, Any]) -> bool:
    """True where the log goes on at the claim's next offset, behind the very record that was read last."""
    if not held.begin <= claim["next_offset"] <= held.end:
        return False
    last_offset = claim["last_offset"]
    if last_offset is None or last_offset < held.begin:
        return True
    reader = await log.reader({source: last_offset})
    try:
        fetched = await reader.fetch(1, FETCH_BYTES, FETCH_SECONDS)
    finally:
        await reader.close()
    last = Fingerprint(last_offset, claim["last_timestamp"], claim["last_crc"])
    return all(record.offset != last_offset or last.matches(record) for record in fetched.get(source, []))
