"""The claim: the right to apply a partition for a subscription, as a row in Postgres.

A claimer raises the epoch and writes a token of its own. From then on a batch commits only if epoch, token, next
offset and sequence are still the ones that its owner knows; the comparison is the transaction's last statement, so that
an owner that is frozen in between holds the row as briefly as possible. The epoch alone would not do: a database
restored from a backup can bring an old epoch back; with a random token, the next offset and the sequence (a retry of a
lane moves that alone) an owner of the lost future cannot match it (test_claim_restored_from_a_backup_cannot_commit,
test_retry_that_a_restore_took_back_fences_its_owner).

A subscription that reads a topic for the first time gets a row for every partition that the topic has at that moment
(`enroll`). So the rows say how many partitions the subscription knows: one that was added later has no row, and is
refused until an operator accepts it, since keys have moved to it. `start="latest"` decides about the first rows only.
Each row names the log that its offsets belong to and, where the log gives topics ids, the topic: one that was created
again has the same name and other records.

An owner that dies leaves its name in the row; a living one removes it, however it ends (`release`). Owners in a row
that died at the same offset, after they had begun to run handlers and with records left to apply, are counted: after
two the batch shrinks to one event, and after one more death that event is parked (`Claim.is_suspect`,
`Claim.blames_next_event`).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from headrace import sql
from headrace.database.failures import LOCK_NOT_AVAILABLE, sqlstate_of
from headrace.database.pool import Connection
from headrace.errors import FencedError, StateUnavailableError
from headrace.ledger.rows import Row
from headrace.log.ports import Record, TopicInfo, TopicPartition

KILLED = (
    "the process died each time while this event was being handled (out of memory, or a crash in native code), "
    "or its handler did not return."
)
SUSPECT_CRASHES = 2
BLAMED_CRASHES = 3


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
        """True if the record is the one that the fingerprint was taken of."""
        other = Fingerprint.of(record)
        return (other.offset, other.timestamp, other.crc) == (self.offset, self.timestamp, self.crc)


def columns_of(last: Fingerprint | None) -> tuple[int | None, int | None, int | None]:
    """Return what a claim's row keeps of the record that was read last."""
    return (None, None, None) if last is None else (last.offset, last.timestamp, last.crc)


class Claim:
    """A claim that this process holds: the row as it will be compared, and its next offset."""

    def __init__(
        self,
        group: str,
        partition: TopicPartition,
        token: UUID,
        row: Any,
        *,
        is_orphaned: bool,
        seconds_released: float | None,
        suspect_records: int,
    ) -> None:
        self.group = group
        self.partition = partition
        self.token = token
        self.log_id: str = row["log_id"]
        self.topic_id: str | None = row["topic_id"]
        self.epoch: int = row["epoch"]
        self.next_offset: int = row["next_offset"]
        self.sequence: int = row["sequence"]
        self.emitted_through: int = row["emitted_through"]
        self.crashes: int = row["crashes"]
        self.is_applying = False
        """True once the row says that handlers may be running."""
        self.is_orphaned = is_orphaned
        """True if the previous owner died: the event that it was handling may have ended it."""
        self.seconds_released = seconds_released
        """For how long nobody held the claim when it was taken; None if its owner had not let go."""
        self._suspect_until: int = self.next_offset + (suspect_records if self.crashes >= SUSPECT_CRASHES else 0)
        self.last: Fingerprint | None = None
        self._next_token = uuid4()
        if row["last_offset"] is not None:
            self.last = Fingerprint(row["last_offset"], row["last_timestamp"], row["last_crc"])

    @property
    def has_died_here(self) -> bool:
        """True if owners died at the next offset, so that the event there runs alone."""
        return self.crashes >= SUSPECT_CRASHES

    @property
    def blames_next_event(self) -> bool:
        """True if the event at the next offset ended its owners one after the other."""
        return self.crashes >= BLAMED_CRASHES

    @property
    def is_suspect(self) -> bool:
        """True if owners died here, so that events are applied one at a time."""
        return self.next_offset < self._suspect_until

    @property
    def tokens(self) -> tuple[UUID, UUID]:
        """The token, and the one that the claim gets if a commit is lost: in the row, either is this owner's."""
        return self.token, self._next_token

    @property
    def identity(self) -> tuple[str, str, int, int, UUID]:
        """The first five arguments of the guarded statements."""
        return (self.group, self.partition.topic, self.partition.partition, self.epoch, self.token)

    @property
    def _guarded(self) -> tuple[str, str, int, int, UUID, int, int]:
        """All that must still be so."""
        return (*self.identity, self.next_offset, self.sequence)

    async def guard(self, connection: Connection) -> None:
        """Lock the claim for the transaction. Raises: FencedError."""
        if await connection.fetchval(sql.claim.LOCK_IF_HELD, *self._guarded) is None:
            raise self.fenced()

    async def check(self, connection: Connection) -> None:
        """Return if the claim is still this process's, also while it is being renewed. Raises: FencedError."""
        if await connection.fetchval(sql.claim.IS_HELD, *self.identity, self._next_token) is None:
            raise self.fenced()

    async def begin_applying(self, connection: Connection) -> None:
        """Note in the row that handlers are about to run; a death before that is not counted. Raises: FencedError."""
        if await connection.execute(sql.claim.BEGIN_APPLYING, *self._guarded) != "UPDATE 1":
            raise self.fenced()
        self.is_applying = True

    async def advance(
        self,
        connection: Connection,
        next_offset: int,
        sequence: int,
        emitted_through: int,
        last: Fingerprint | None,
        row: Row | None = None,
    ) -> None:
        """Move the claim along, and write the ledger's `row` of the batch; the last statement of a transaction.

        Raises: FencedError (roll back and stop).
        """
        moved = (
            *self.identity,
            self.next_offset,
            next_offset,
            sequence,
            emitted_through,
            *columns_of(last),
            self.sequence,
        )
        if row is None:
            status = await connection.execute(sql.claim.ADVANCE, *moved)
        else:
            counts = (row.applied, row.skipped, row.parked, row.dead)
            status = await connection.execute(
                sql.claim.ADVANCE_WITH_ROW, *moved, row.kind, *counts, row.ids, row.marks, row.emits
            )
        if status.rpartition(" ")[2] != "1":
            raise self.fenced()

    def advanced(self, next_offset: int, sequence: int, emitted_through: int, last: Fingerprint | None) -> None:
        """Follow what was committed."""
        if next_offset > self.next_offset:
            self.crashes = 0
        self.next_offset = next_offset
        self.sequence = sequence
        self.emitted_through = emitted_through
        self.last = last

    async def was_committed(self, connection: Connection, sequence: int) -> bool:
        """Tell what a lost connection left behind, inside a transaction: True if the batch `sequence` is committed.

        Waits for the lost session's row lock. If the batch is not committed, the claim gets another token, since the
        statement may still be on its way: `renewed` follows behind the commit. Raises: FencedError.
        """
        row = await connection.fetchrow(sql.claim.LAST_BATCH_FOR_UPDATE, *self.identity[:3])
        if row is None:
            raise self.fenced()
        held = (row["epoch"], row["token"])
        if held == (self.epoch + 1, self._next_token):
            return False  # the answer to this question was lost as well
        if held != (self.epoch, self.token):
            raise self.fenced()
        if int(row["sequence"]) == sequence:
            return True
        await connection.execute(sql.claim.RENEW, *self.identity, self._next_token)
        return False

    def renewed(self) -> None:
        """Follow the token that `was_committed` has given to the claim."""
        self.epoch, self.token, self._next_token = self.epoch + 1, self._next_token, uuid4()

    def fenced(self) -> FencedError:
        """Return the error for a claim that is no longer ours."""
        return FencedError(
            f"{self.group}: {self.partition.topic}/{self.partition.partition} was claimed by another owner "
            f"(epoch {self.epoch} at offset {self.next_offset} is no longer in force)."
        )


async def known_partitions(connection: Connection, group: str, topic: str) -> tuple[int, str | None]:
    """Return how many partitions of the topic the subscription knows (0: it never read the topic), and of which log."""
    row = await connection.fetchrow(sql.claim.KNOWN_PARTITIONS, group, topic)
    assert row is not None
    return row["partitions"], row["log_id"]


async def enroll(connection: Connection, group: str, info: TopicInfo, first_offsets: Mapping[int, int]) -> None:
    """Make the topic's rows for a subscription that never read it; `first_offsets` by partition number."""
    numbers = sorted(first_offsets)
    offsets = [first_offsets[number] for number in numbers]
    identity = (info.topic, uuid4(), info.log_id, info.topic_id)
    await connection.execute(sql.claim.ENROLL, group, *identity, numbers, offsets)


async def claim(
    connection: Connection,
    group: str,
    partition: TopicPartition,
    owner: str,
    *,
    info: TopicInfo,
    log_end: int,
    suspect_records: int,
) -> Claim:
    """Take the partition: epoch + 1, a new token. Raises: StateUnavailableError (somebody removed the row just now).

    The row keeps the log and the topic id that it knows; one that knows none learns those of `info`.

    If nothing is left up to `log_end`, no event can have ended the previous owner; after too many deaths
    `suspect_records` offsets are applied one event at a time.
    """
    token = uuid4()
    try:
        async with connection.transaction():
            previous = await connection.fetchrow(sql.claim.OWNER_FOR_UPDATE, group, *partition)
            is_orphaned = previous is not None and previous["owner"] not in (None, owner)
            if is_orphaned:  # here, since a claimer that gets no further is no orphan's heir when it claims again
                await connection.execute(sql.lane.NOTE_DEATH, group, partition.partition, KILLED)
                await connection.execute(sql.effect.COUNT_DEATH, group, partition.partition, owner)
            row = await connection.fetchrow(
                sql.claim.CLAIM, group, *partition, token, owner, log_end, info.log_id, info.topic_id
            )
    except Exception as error:
        if sqlstate_of(error) == LOCK_NOT_AVAILABLE:
            await connection.fetchval(sql.claim.END_SILENT)  # the owner may be frozen in the middle of a statement
        raise
    if row is None or previous is None:
        raise StateUnavailableError(f"{group}: the claim of {partition.topic}/{partition.partition} was removed.")
    return Claim(
        group,
        partition,
        token,
        row,
        is_orphaned=is_orphaned,
        seconds_released=previous["seconds_released"],
        suspect_records=suspect_records,
    )


async def release(connection: Connection, group: str, partition: int, topics: Sequence[str], owner: str) -> None:
    """Remove the owner's name from what it still holds: the next claim counts no death."""
    await connection.execute(sql.claim.RELEASE, group, partition, list(topics), owner)
