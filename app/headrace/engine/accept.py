"""`headrace topics --accept`: a person takes a topic as it is now, and the claims follow it.

```
the topic's ends ─▶ is every old partition applied up to them? ─▶ lock the claims ─▶ move, stamp, add ─▶ commit
                        └── no: wait, and refuse after a minute (only if partitions were added)
```
A key that moves to an added partition is applied there in order only after everything of it that stands in its old
partition: therefore the old partitions are waited for, with their lanes. What its old partition has seen, the added
one has to recognise as well: therefore it inherits the old one's ids. What its old owner remembers of it must not be
used when the key comes back with the next partition: therefore every claim gets a new token, and every owner claims
again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace import sql
from headrace.database.pool import Connection
from headrace.engine.claim import Fingerprint
from headrace.engine.continuity import is_another
from headrace.errors import ConfigurationError
from headrace.ledger.inheritance import inherit_ids
from headrace.ledger.moves import note_move
from headrace.ledger.rows import insert_row, move, read_unmarked
from headrace.log.partitioner import partition_for
from headrace.log.ports import Bounds, Log, TopicInfo, TopicPartition
from headrace.outbox.rows import ANY_SIZE, new_row, write

FETCH_SECONDS = 5.0
DRAIN_SECONDS = 60.0
"""How long the old partitions are waited for."""
POLL_SECONDS = 1.0
SILENT_SECONDS = 60
"""So long the log may take to answer while the claims are locked."""

Report = Callable[[str], None]
"""Called with a line about what is waited for, for the person who waits as well."""


async def accept_topic(
    connection: Connection,
    log: Log,
    topic: str,
    *,
    window_ids: int,
    patience_seconds: float = DRAIN_SECONDS,
    report: Report = lambda line: None,
) -> list[str]:
    """Take the topic as it is now, for every group that reads it, in one transaction.

    A claim that the log continues stays where it is; one that it does not continue moves to the partition's beginning.
    A partition that was added gets a claim at its beginning, also if the subscription starts at `latest`: its events
    came after the subscription did. Its dedupe window holds the newest `window_ids` ids of the partition that its keys
    were on. Returns a line for each claim that was moved or added.
    Raises: ConfigurationError (the topic does not exist; an old partition is not applied up to the end that it had
    when this was called), TransportError, StateError.
    """
    infos = await log.topics([topic])
    if topic not in infos:
        raise ConfigurationError(f"topic {topic!r} does not exist in HEADRACE_LOG; create it with `headrace topics`.")
    info = infos[topic]
    ends = await _applied_ends(connection, log, info)
    deadline, said = time.monotonic() + patience_seconds, ""
    while True:
        waiting = await _waiting(connection, topic, ends)
        if not waiting:
            async with connection.transaction():
                await connection.execute(f"set local idle_in_transaction_session_timeout = '{SILENT_SECONDS}s'")
                claims = await connection.fetch(sql.claim.OF_TOPIC_FOR_UPDATE, topic, info.partitions)
                waiting = await _waiting(connection, topic, ends)
                if not waiting:
                    return await _take(connection, log, info, claims, window_ids)
        if time.monotonic() >= deadline:
            raise ConfigurationError(
                f"topic {topic!r} has new partitions, but its old ones are not applied yet ({waiting}); let its "
                f"workers apply them until no event is parked, then run `headrace topics --accept {topic}` again."
            )
        if waiting != said:
            report(f"waiting for the old partitions of {topic}: {waiting}")
            said = waiting
        await asyncio.sleep(POLL_SECONDS)


async def _applied_ends(connection: Connection, log: Log, info: TopicInfo) -> dict[tuple[str, int], int]:
    """Return up to which offset each (group, partition) has to be applied first: those of groups that get partitions.

    A partition that does not continue at its claim is refused: nobody can apply it, and nothing of it is waited for.
    """
    claims = await connection.fetch(sql.claim.OF_TOPIC, info.topic, info.partitions)
    bounds = await _bounds(log, info)
    known = _known(claims)
    return {
        (claim["subscription"], claim["partition"]): bounds[TopicPartition(info.topic, claim["partition"])].high
        for claim in claims
        if known[claim["subscription"]] < info.partitions and await _continues(log, info, bounds, claim)
    }


async def _waiting(connection: Connection, topic: str, ends: Mapping[tuple[str, int], int]) -> str:
    """Return what stands between the claims and the ends, for a person; "" if nothing does."""
    if not ends:
        return ""
    rows = await connection.fetch(sql.claim.OF_TOPIC, topic, max(number for _, number in ends) + 1)
    offsets = {(row["subscription"], row["partition"]): row["next_offset"] for row in rows}
    groups = sorted({group for group, _ in ends})
    parked, calls = [
        {(row["subscription"], row["partition"]): row["events"] for row in await connection.fetch(query, topic, groups)}
        for query in (sql.lane.PARKED_OF_TOPIC, sql.effect.COUNT_OF_TOPIC)
    ]
    found = []
    for place, end in ends.items():
        records, events = max(0, end - offsets.get(place, end)), parked.get(place, 0)
        left = f"{place[0]}: {topic}/{place[1]} has {records} records and {events} parked events left"
        if waiting := calls.get(place, 0):
            left += f", and {waiting} calls of effects"
        if records or events or waiting:
            found.append(left)
    return ", ".join(found)


async def _take(connection: Connection, log: Log, info: TopicInfo, claims: Sequence[Any], window_ids: int) -> list[str]:
    """Move, stamp and add claims, which are locked. The bounds are read again: the claims may have advanced."""
    bounds = await _bounds(log, info)
    await _keep_emits(connection, info)
    await connection.execute(sql.claim.REMOVE_PARTITIONS, info.topic, info.partitions)
    await connection.execute(sql.topic.REMEMBER, info.topic, info.partitions, info.log_id)
    for query in (sql.timer.FOLLOW_PARTITIONS, sql.effect.FOLLOW_PARTITIONS):
        await connection.execute(query, sorted(_known(claims)), info.partitions)
    await _keep_letters(connection, sorted(_known(claims)), info.partitions)
    moved = [line for claim in claims if (line := await _follow(connection, log, info, bounds, claim))]
    return moved + await _add_missing(connection, info, bounds, claims, window_ids)


async def _keep_emits(connection: Connection, info: TopicInfo) -> None:
    """Put what partitions that are gone have emitted into the outbox, unless it is known to be in the log.

    Their owners may be gone before they have published it.
    """
    for claim in await connection.fetch(sql.claim.LOST_FOR_UPDATE, info.topic, info.partitions):
        group, place = claim["subscription"], TopicPartition(info.topic, claim["partition"])
        service, after = group.partition(".")[0], claim["emitted_through"]
        while rows := await read_unmarked(connection, group, place, after):
            emitted = [record for _, records in rows for record in records]
            await write(connection, service, [new_row(record, ANY_SIZE) for record in emitted])
            after = rows[-1][0]


async def _keep_letters(connection: Connection, groups: Sequence[str], partitions: int) -> None:
    """Give the dead letters of partitions that are gone to where their keys are now: a replay needs an owner.

    What waits in their lanes becomes dead letters, since nobody runs it. The letters of one key stay together, and are
    replayed in the order that they had.
    """
    await connection.execute(sql.lane.GIVE_UP_LOST, groups, partitions)
    letters = await connection.fetch(sql.dead_letter.OF_LOST_PARTITIONS, groups, partitions)
    if letters:
        numbers = [partition_for(letter["key"], partitions) for letter in letters]
        await connection.execute(sql.dead_letter.FOLLOW_KEYS, [letter["id"] for letter in letters], numbers)


async def _follow(
    connection: Connection, log: Log, info: TopicInfo, bounds: Mapping[TopicPartition, Bounds], claim: Any
) -> str | None:
    """Stamp the claim with the log, or move it to the partition's beginning and return a line that says so."""
    place = TopicPartition(info.topic, claim["partition"])
    if await _continues(log, info, bounds, claim):
        await connection.execute(sql.claim.SET_LOG, *place, claim["subscription"], info.log_id, info.topic_id)
        return None
    group, begin = claim["subscription"], bounds[place].begin
    moved = await connection.fetchrow(sql.claim.RESET, *place, group, begin, info.log_id, info.topic_id)
    assert moved is not None
    row = move(moved["sequence"], moved["epoch"], claim["next_offset"], begin)
    await insert_row(connection, group, place, row)
    await note_move(connection, group, place, row, "accept")
    return f"{group}: {place.topic}/{place.partition} continues at offset {begin}"


async def _add_missing(
    connection: Connection,
    info: TopicInfo,
    bounds: Mapping[TopicPartition, Bounds],
    claims: Sequence[Any],
    window_ids: int,
) -> list[str]:
    """Add the claims of new partitions, each with the ids of the old partition that its keys come from."""
    lines = []
    claimed = {(claim["subscription"], claim["partition"]) for claim in claims}
    for group, known in sorted(_known(claims).items()):
        for number in range(info.partitions):
            if (group, number) in claimed:
                continue
            begin = bounds[TopicPartition(info.topic, number)].begin
            source = TopicPartition(info.topic, number % known)
            sequence, ids = await inherit_ids(connection, group, source, number, begin, window_ids)
            await connection.execute(
                sql.claim.ADD_PARTITION, info.topic, number, group, begin, info.log_id, info.topic_id, sequence
            )
            added = move(sequence, 0, begin, begin)
            await note_move(connection, group, TopicPartition(info.topic, number), added, "add")
            lines.append(
                f"{group}: {info.topic}/{number} is new, begins at offset {begin} and knows {ids} event ids of "
                f"partition {source.partition}"
            )
    return lines


def _known(claims: Sequence[Any]) -> dict[str, int]:
    """Return how many partitions each group knows."""
    known: dict[str, int] = {}
    for claim in claims:
        known[claim["subscription"]] = max(known.get(claim["subscription"], 0), claim["partition"] + 1)
    return known


async def _bounds(log: Log, info: TopicInfo) -> dict[TopicPartition, Bounds]:
    return await log.bounds([TopicPartition(info.topic, number) for number in range(info.partitions)])


async def _continues(log: Log, info: TopicInfo, bounds: Mapping[TopicPartition, Bounds], claim: Any) -> bool:
    """True if the log continues at the claim's next offset, right behind the record that was read last."""
    place = TopicPartition(info.topic, claim["partition"])
    held = bounds[place]
    if claim["log_id"] != info.log_id or not held.begin <= claim["next_offset"] <= held.end:
        return False
    if claim["next_offset"] and is_another(claim["topic_id"], info):
        return False
    last_offset = claim["last_offset"]
    if last_offset is None or last_offset < held.begin:
        return True
    reader = await log.reader({place: last_offset})
    try:
        fetched = await reader.fetch(1, 2**20, FETCH_SECONDS)
    finally:
        await reader.close()
    last = Fingerprint(last_offset, claim["last_timestamp"], claim["last_crc"])
    return all(record.offset != last_offset or last.matches(record) for record in fetched.get(place, []))
