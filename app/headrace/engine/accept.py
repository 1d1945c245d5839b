"""`headrace topics --accept`: a person takes a topic as it is now, and the claims follow it."""

from __future__ import annotations

from typing import Any

from headrace.database.pool import Connection
from headrace.engine.claim import Fingerprint
from headrace.errors import ConfigurationError
from headrace.log.ports import Bounds, Log, TopicInfo, TopicPartition
from headrace.log.topics import REMEMBER

FETCH_SECONDS = 5.0

# The claims of a topic, locked: no batch commits while they are compared with the log. The log of a claim that was
# made before claims knew theirs is the one that the topic was last seen in.
CLAIMS = """
select subscription, partition, next_offset, last_offset, last_timestamp, last_crc,
       coalesce(c.log_id, t.log_id) as log_id
  from headrace.claim c left join headrace.topic t using (topic)
 where topic = $1
 order by partition, subscription
   for update of c
"""
# Moves a claim to an offset of another log; whoever owns it is fenced.
RESET = """
update headrace.claim
   set epoch = epoch + 1, token = gen_random_uuid(), owner = null, next_offset = $4, claimed_offset = $4,
       last_offset = null, last_timestamp = null, last_crc = null, crashes = 0, log_id = $5
 where topic = $1 and partition = $2 and subscription = $3
"""
# Notes the log of a claim that stays where it is.
STAMP = "update headrace.claim set log_id = $4 where topic = $1 and partition = $2 and subscription = $3"
# A claim on a partition that was added: from its beginning, whatever the subscription's `start` is.
ADD = """
insert into headrace.claim (subscription, topic, partition, epoch, token, claimed_offset, next_offset, log_id)
values ($3, $1, $2, 0, gen_random_uuid(), $4, $4, $5)
"""
# Removes the claims on partitions that the topic no longer has.
FORGET = "delete from headrace.claim where topic = $1 and partition >= $2"


async def accept_topic(connection: Connection, log: Log, topic: str) -> list[str]:
    """Take the topic as it is now, for every group that reads it, in one transaction.

    A claim that the log continues stays where it is; one that it does not continue moves to the partition's beginning.
    A partition that was added gets a claim at its beginning, also if the subscription starts at `latest`: its events
    came after the subscription did. Returns a line for each claim that was moved or added.
    Raises: ConfigurationError (the topic does not exist), TransportError, StateError.
    """
    infos = await log.topics([topic])
    if topic not in infos:
        raise ConfigurationError(f"topic {topic!r} does not exist in HEADRACE_LOG; create it with `headrace topics`.")
    info = infos[topic]
    bounds = await log.bounds([TopicPartition(topic, number) for number in range(info.partitions)])
    async with connection.transaction():
        await connection.execute(FORGET, topic, info.partitions)
        claims = await connection.fetch(CLAIMS, topic)
        await connection.execute(REMEMBER, topic, info.partitions, info.log_id)
        moved = [line for claim in claims if (line := await _follow(connection, log, info, bounds, claim))]
        return moved + await _add_missing(connection, info, bounds, claims)


async def _follow(
    connection: Connection, log: Log, info: TopicInfo, bounds: dict[TopicPartition, Bounds], claim: Any
) -> str | None:
    """Stamp the claim with the log, or move it to the partition's beginning and return a line that says so."""
    place = TopicPartition(info.topic, claim["partition"])
    if claim["log_id"] == info.log_id and await _continues(log, place, bounds[place], claim):
        await connection.execute(STAMP, *place, claim["subscription"], info.log_id)
        return None
    begin = bounds[place].begin
    await connection.execute(RESET, *place, claim["subscription"], begin, info.log_id)
    return f"{claim['subscription']}: {place.topic}/{place.partition} continues at offset {begin}"


async def _add_missing(
    connection: Connection, info: TopicInfo, bounds: dict[TopicPartition, Bounds], claims: list[Any]
) -> list[str]:
    lines = []
    claimed = {(claim["subscription"], claim["partition"]) for claim in claims}
    for group in sorted({group for group, _ in claimed}):
        for number in range(info.partitions):
            if (group, number) not in claimed:
                begin = bounds[TopicPartition(info.topic, number)].begin
                await connection.execute(ADD, info.topic, number, group, begin, info.log_id)
                lines.append(f"{group}: {info.topic}/{number} is new and begins at offset {begin}")
    return lines


async def _continues(log: Log, place: TopicPartition, bounds: Bounds, claim: Any) -> bool:
    """True if the log continues at the claim's next offset, right behind the record that was read last."""
    if not bounds.begin <= claim["next_offset"] <= bounds.end:
        return False
    last_offset = claim["last_offset"]
    if last_offset is None or last_offset < bounds.begin:
        return True
    reader = await log.reader({place: last_offset})
    try:
        fetched = await reader.fetch(1, 2**20, FETCH_SECONDS)
    finally:
        await reader.close()
    last = Fingerprint(last_offset, claim["last_timestamp"], claim["last_crc"])
    return all(record.offset != last_offset or last.matches(record) for record in fetched.get(place, []))
