"""Compares claims and ledger: ranges, ids, and which emits are marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from headrace import sql
from headrace.audit.findings import Check, Finding
from headrace.database.pool import Connection, Row
from headrace.ledger.partitions import days
from headrace.ledger.rows import IDENTITY_BYTES, Kind

LEDGER_ROWS = 10_000
"""The newest rows of each partition that are compared."""
MOST_IDS = 2_000_000
"""The most ids of one audit, about two seconds of Postgres' work; each partition has an equal share."""
MOST_FINDINGS = 100
"""The most findings of one question: a person needs to see that it is broken, and where."""
UNMARKED = timedelta(minutes=10)
"""An owner publishes and marks what is emitted within seconds; in an outage of the log `HeadraceEmitsPending` has fired
long before."""

Place: TypeAlias = tuple[str, int]
"""(topic, partition)."""


class Evidence(NamedTuple):
    """What the snapshot says of the claims of one subscription."""

    group: str
    at: datetime
    is_paused: bool
    claims: Sequence[Row]
    totals: Mapping[Place, Row]
    """The sums over the newest ledger rows of each claim that has some."""
    broken: Sequence[Row]
    """Ledger rows that do not continue the one before, or do not agree in themselves."""
    days: set[date]
    """The days whose part of the ledger is there."""

    def dropped_between(self, first: datetime, last: datetime) -> bool:
        """True if retention may have dropped rows that were committed between two times."""
        begin, end = sorted(at.astimezone(UTC).date() for at in (first, last))
        return any(begin + timedelta(days=n) not in self.days for n in range((end - begin).days + 1))


async def read_evidence(connection: Connection, group: str) -> Evidence:
    """Read the claims and what the newest ledger rows sum up to. Raises: asyncpg's errors."""
    now = await connection.fetchrow(sql.audit.PAUSED, group)
    assert now is not None
    totals = await connection.fetch(sql.audit.TOTALS, group, LEDGER_ROWS)
    return Evidence(
        group,
        now["at"],
        now["paused"],
        await connection.fetch(sql.audit.CLAIMS, group),
        {(row["topic"], row["partition"]): row for row in totals},
        await connection.fetch(sql.audit.BROKEN_ROWS, group, LEDGER_ROWS, MOST_FINDINGS),
        await days(connection),
    )


def audit_ranges(evidence: Evidence) -> Iterator[Finding]:
    """Yield where the ledger's rows do not continue each other, or do not end at the claim."""
    for row in evidence.broken:
        for check, detail in _faults_of_row(evidence, row):
            yield Finding(check, row["topic"], row["partition"], f"ledger row {row['sequence']}: {detail}")
    for claim in evidence.claims:
        for detail in _faults_of_claim(evidence, claim):
            yield Finding("offsets", claim["topic"], claim["partition"], detail)


def _faults_of_row(evidence: Evidence, row: Row) -> Iterator[tuple[Check, str]]:
    kind, first, following = row["kind"], row["first_offset"], row["next_offset"]
    counted = row["applied"] + row["skipped"] + row["parked"] + row["dead"]
    ids = row["id_bytes"] / IDENTITY_BYTES
    if (before := row["before_sequence"]) is not None:
        if row["sequence"] == before:
            yield "offsets", "is there twice."
        elif row["sequence"] != before + 1:
            if not (row["before_epoch"] == 0 or evidence.dropped_between(row["before_at"], row["committed_at"])):
                yield "offsets", f"the rows {before + 1} to {row['sequence'] - 1} before it are missing."
        elif kind != Kind.MOVE and row["epoch"] > 0 and first != row["before_offset"]:
            yield "offsets", f"begins at offset {first}, but the row before it ends at {row['before_offset']}."
        if 0 < row["epoch"] < row["before_epoch"]:
            yield "offsets", f"was written in epoch {row['epoch']}, after one of epoch {row['before_epoch']}."
    if kind != Kind.MOVE and (following < first or (kind != Kind.BATCH and following != first)):
        yield "offsets", f"goes from offset {first} to {following}."
    if kind == Kind.BATCH and counted > following - first:
        yield "offsets", f"tells of {counted} events between the offsets {first} and {following}."
    if row["mark_bytes"] is not None and row["mark_bytes"] != ids * 12:
        yield "ids", f"has {ids:g} ids, but {row['mark_bytes']} bytes of marks."
    if row["id_bytes"] % IDENTITY_BYTES:
        yield "ids", f"has {row['id_bytes']} bytes of ids."
    elif kind == Kind.BATCH and ids < (seen := row["applied"] + row["parked"]):
        yield "ids", f"applied and parked {seen} events, but has {ids:g} ids."
    elif row["epoch"] > 0 and ids > counted:
        yield "ids", f"tells of {counted} events, but has {ids:g} ids."


def _faults_of_claim(evidence: Evidence, claim: Row) -> Iterator[str]:
    sequence, last = claim["sequence"], claim["last_sequence"]
    since = claim["last_at"] or claim["committed_at"]
    if (last or 0) != sequence and not (
        (last or 0) < sequence and evidence.dropped_between(since, claim["committed_at"])
    ):
        yield f"the claim is at ledger row {sequence}, but the last row is {last or 'missing'}."
    elif last == sequence and claim["last_next_offset"] != claim["next_offset"]:
        yield f"the claim is at offset {claim['next_offset']}, but the ledger ends at {claim['last_next_offset']}."
    if last is not None and claim["last_epoch"] > claim["epoch"]:
        yield f"the claim is of epoch {claim['epoch']}, but the last ledger row of epoch {claim['last_epoch']}."
    if claim["last_offset"] is not None and claim["last_offset"] >= claim["next_offset"]:
        yield f"the claim is at offset {claim['next_offset']}, but has read offset {claim['last_offset']}."


def audit_emits(evidence: Evidence) -> Iterator[Finding]:
    """Yield claims that mark more emits than there are, and owners that leave some unmarked."""
    for claim in evidence.claims:
        place = claim["topic"], claim["partition"]
        if claim["emitted_through"] > claim["sequence"]:
            detail = (
                f"emits are marked up to ledger row {claim['emitted_through']}, but the last is {claim['sequence']}."
            )
            yield Finding("emits", *place, detail)
        if claim["unmarked_since"] is None or claim["owner"] is None or evidence.is_paused:
            continue
        if (age := evidence.at - max(claim["unmarked_since"], claim["claimed_at"])) > UNMARKED:
            detail = f"the emits of ledger row {claim['unmarked_sequence']} are not marked after {age}."
            yield Finding("emits", *place, detail)


async def audit_ids(connection: Connection, evidence: Evidence, window_ids: int) -> tuple[int, list[Finding]]:
    """Return how many ids were compared, and those that are twice in the dedupe window of their partition.

    Only rows behind the last move of the claim count: what a person has rewound is applied again.
    """
    found: list[Finding] = []
    share = min(window_ids, MOST_IDS // max(1, len(evidence.claims)))
    compared = 0
    for (topic, partition), total in evidence.totals.items():
        asked: list[Any] = [evidence.group, topic, partition, total["moved_sequence"] or 0, LEDGER_ROWS]
        asked.append(share * IDENTITY_BYTES)
        counted = await connection.fetchrow(sql.audit.COUNT_IDS, *asked)
        assert counted is not None
        compared += counted["ids"]
        if counted["ids"] == counted["distinct"]:
            continue
        for row in await connection.fetch(sql.audit.REPEATED_IDS, *asked, MOST_FINDINGS):
            rows = f"{row['first_sequence']} to {row['last_sequence']}"
            detail = f"the event id {row['id'].hex()} is {row['times']} times in the ledger rows {rows}."
            found.append(Finding("ids", topic, partition, detail))
    return compared, found
