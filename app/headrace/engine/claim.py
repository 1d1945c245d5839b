"""The claim: the right to apply a partition for a subscription, as a row in Postgres.

A claimer raises the epoch and writes a token of its own. From then on a batch commits only where epoch, token and next
offset are still the ones its owner knows; the comparison is the transaction's last statement, so that a stopped zombie
holds the row for as short as possible. The epoch alone would not do: a database restored from a backup can bring an
old epoch back; with the next offset and a random token an owner of the lost future cannot match it
(test_claim_restored_from_a_backup_cannot_commit).

An owner that dies leaves its name in the row; one that lives takes it back, however it comes to an end (`release`).
Owners in a row that died at the same offset, with records left to apply, are counted: after two the batch shrinks to
one event, and one more death there parks that event (`Claim.is_suspect`, `Claim.is_guilty`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from headrace.errors import FencedError
from headrace.log.ports import Record, TopicPartition

SUSPECT_CRASHES = 2
GUILTY_CRASHES = 3

CLAIM = """
insert into headrace.claim as held
    (subscription, topic, partition, epoch, token, owner, claimed_offset, next_offset)
values ($1, $2, $3, 1, $4, $5, $6, $6)
on conflict (subscription, topic, partition) do update
set epoch = held.epoch + 1, token = excluded.token, owner = excluded.owner, claimed_at = now(),
    crashes = case when held.owner is null then 0
                   when held.owner = excluded.owner then held.crashes
                   when held.next_offset >= $7 then 0
                   when held.next_offset = held.claimed_offset then held.crashes + 1
                   else 1 end,
    claimed_offset = held.next_offset
returning epoch, next_offset, sequence, emitted_through, last_offset, last_timestamp, last_crc, crashes
"""

PREVIOUS = """
select owner from headrace.claim where subscription = $1 and topic = $2 and partition = $3 for update
"""

GUARD = """
select 1 from headrace.claim
where subscription = $1 and topic = $2 and partition = $3 and epoch = $4 and token = $5 and next_offset = $6
for update
"""

ADVANCE = """
update headrace.claim
set next_offset = $7, sequence = $8, emitted_through = $9, last_offset = $10, last_timestamp = $11, last_crc = $12,
    crashes = case when $7 > next_offset then 0 else crashes end, committed_at = now()
where subscription = $1 and topic = $2 and partition = $3 and epoch = $4 and token = $5 and next_offset = $6
"""

RELEASE = """
update headrace.claim set owner = null, crashes = 0
where subscription = $1 and partition = $2 and topic = any($3::text[]) and owner = $4
"""

LOOK = """
select epoch, token, next_offset, sequence from headrace.claim
where subscription = $1 and topic = $2 and partition = $3 for update
"""


class Fingerprint:
    """What tells one record from another at the same offset: its time and the CRC-32 of key and value."""

    __slots__ = ("crc", "offset", "timestamp")

    def __init__(self, offset: int, timestamp: int, crc: int) -> None:
        self.offset = offset
        self.timestamp = timestamp
        self.crc = crc

    @classmethod
    def of(cls, record: Record) -> Fingerprint:
        """Return the fingerprint of a record."""
        return cls(record.offset, record.timestamp, zlib.crc32(record.value or b"", zlib.crc32(record.key or b"")))

    def matches(self, record: Record) -> bool:
        """True where the record is the one the fingerprint was taken of."""
        other = Fingerprint.of(record)
        return (other.offset, other.timestamp, other.crc) == (self.offset, self.timestamp, self.crc)


class Claim:
    """A claim that this process holds: the row as it will be compared, and where it stands."""

    def __init__(
        self,
        group: str,
        source: TopicPartition,
        token: UUID,
        row: Any,
        *,
        is_orphaned: bool,
        suspect_records: int,
    ) -> None:
        self.group = group
        self.source = source
        self.token = token
        self.epoch: int = row["epoch"]
        self.next_offset: int = row["next_offset"]
        self.sequence: int = row["sequence"]
        self.emitted_through: int = row["emitted_through"]
        self.crashes: int = row["crashes"]
        self.is_orphaned = is_orphaned
        """True where the owner before died: what it was at may have killed it."""
        self._suspect_until: int = self.next_offset + (suspect_records if self.crashes >= SUSPECT_CRASHES else 0)
        self.last: Fingerprint | None = None
        if row["last_offset"] is not None:
            self.last = Fingerprint(row["last_offset"], row["last_timestamp"], row["last_crc"])

    @property
    def is_guilty(self) -> bool:
        """True where the event at the next offset killed its owners one by one."""
        return self.crashes >= GUILTY_CRASHES

    @property
    def is_suspect(self) -> bool:
        """True where owners died here, so that events go one at a time."""
        return self.next_offset < self._suspect_until

    @property
    def identity(self) -> tuple[str, str, int, int, UUID]:
        """The first five arguments of the guarded statements."""
        return (self.group, self.source.topic, self.source.partition, self.epoch, self.token)

    async def guard(self, connection: asyncpg.Connection[Any]) -> None:
        """Lock the claim for the transaction. Raises: FencedError."""
        if await connection.fetchval(GUARD, *self.identity, self.next_offset) is None:
            raise self.fenced()

    async def advance(
        self,
        connection: asyncpg.Connection[Any],
        next_offset: int,
        sequence: int,
        emitted_through: int,
        last: Fingerprint | None,
    ) -> None:
        """Move the row along; the last statement of a transaction. Raises: FencedError (roll back, let go)."""
        mark = (last.offset, last.timestamp, last.crc) if last is not None else (None, None, None)
        status = await connection.execute(
            ADVANCE, *self.identity, self.next_offset, next_offset, sequence, emitted_through, *mark
        )
        if status != "UPDATE 1":
            raise self.fenced()

    def advanced(self, next_offset: int, sequence: int, emitted_through: int, last: Fingerprint | None) -> None:
        """Take in what was committed."""
        if next_offset > self.next_offset:
            self.crashes = 0
        self.next_offset = next_offset
        self.sequence = sequence
        self.emitted_through = emitted_through
        self.last = last

    async def was_committed(self, connection: asyncpg.Connection[Any], sequence: int) -> bool:
        """Tell what a lost connection left behind: True where the batch `sequence` is committed.

        Waits for the lost session's row lock, so that it cannot commit afterwards. Raises: FencedError.
        """
        row = await connection.fetchrow(LOOK, *self.identity[:3])
        if row is None or row["token"] != self.token or row["epoch"] != self.epoch:
            raise self.fenced()
        return int(row["sequence"]) == sequence

    def fenced(self) -> FencedError:
        """The error for a claim that is no longer ours."""
        return FencedError(
            f"{self.group}: {self.source.topic}/{self.source.partition} was claimed by another owner "
            f"(epoch {self.epoch} at offset {self.next_offset} is no longer in force)."
        )


async def claim(
    connection: asyncpg.Connection[Any],
    group: str,
    source: TopicPartition,
    owner: str,
    *,
    first_offset: int,
    log_end: int,
    suspect_records: int,
) -> Claim:
    """Take the partition: epoch + 1, a new token.

    `first_offset` is where a partition never claimed begins; where nothing is left up to `log_end`, no event can have
    killed the owner before; after too many deaths `suspect_records` offsets go one event at a time.
    """
    token = uuid4()
    async with connection.transaction(isolation="read_committed"):
        previous = await connection.fetchval(PREVIOUS, group, *source)
        row = await connection.fetchrow(CLAIM, group, *source, token, owner, first_offset, log_end)
    is_orphaned = previous is not None and previous != owner
    return Claim(group, source, token, row, is_orphaned=is_orphaned, suspect_records=suspect_records)


async def release(
    connection: asyncpg.Connection[Any], group: str, partition: int, topics: Sequence[str], owner: str
) -> None:
    """Let go of what the owner still holds: the next claim counts no death. Harms no batch in flight."""
    await connection.execute(RELEASE, group, partition, list(topics), owner)
