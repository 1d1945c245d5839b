"""Compares lanes, parked events, dead letters, states and claims."""

from __future__ import annotations

from datetime import UTC, datetime

from headrace import sql
from headrace.audit.findings import Finding
from headrace.audit.ledger import MOST_FINDINGS, Evidence
from headrace.database.pool import Connection

STATE_BYTES = 16 * 2**20
"""About so much of the table of states is looked at; all of a smaller one."""
NEVER = datetime.max.replace(tzinfo=UTC)


async def audit_lanes(connection: Connection, evidence: Evidence) -> list[Finding]:
    """Return where lanes, parked events and dead letters contradict each other, or their claims."""
    group = evidence.group
    return [
        *await _unmatched(connection, group),
        *await _in_two_places(connection, group),
        *await _misplaced(connection, evidence),
        *await _overtaken(connection, evidence),
        *await _miscounted(connection, evidence),
    ]


async def audit_states(connection: Connection, group: str) -> list[Finding]:
    """Return states without a version or a value, in a share of the table that is bounded in bytes."""
    size = await connection.fetchval(sql.audit.STATE_BYTES)
    share = 100.0 if size <= STATE_BYTES else 100.0 * STATE_BYTES / size
    rows = await connection.fetch(sql.audit.ODD_STATES, group, share, MOST_FINDINGS)
    return [
        Finding("states", None, None, f"{row['state']} of {row['key']!r} has version {row['version']}, or no value.")
        for row in rows
    ]


async def _unmatched(connection: Connection, group: str) -> list[Finding]:
    empty = await connection.fetch(sql.audit.EMPTY_LANES, group, MOST_FINDINGS)
    loose = await connection.fetch(sql.audit.PARKED_WITHOUT_LANE, group, MOST_FINDINGS)
    return [
        Finding("lanes", None, row["partition"], f"the lane of {_shown(row['key'])} holds no event.") for row in empty
    ] + [
        Finding(
            "lanes",
            None,
            row["partition"],
            f"parked events of {_shown(row['key'])} ({row['events']}) have no lane: nobody retries them.",
        )
        for row in loose
    ]


async def _in_two_places(connection: Connection, group: str) -> list[Finding]:
    found = []
    for row in await connection.fetch(sql.audit.IN_TWO_PLACES, group, MOST_FINDINGS):
        also = "waits in a lane as well" if row["is_parked"] else "is there more than once"
        detail = f"the open dead letter of offset {row['offset']} {also}."
        found.append(Finding("lanes", row["topic"], row["partition"], detail))
    return found


async def _misplaced(connection: Connection, evidence: Evidence) -> list[Finding]:
    """Compare positions; only what was put there since the ledger is known, and since the claim was last moved."""
    claims = evidence.claims
    known = (
        [claim["topic"] for claim in claims],
        [claim["partition"] for claim in claims],
        [claim["next_offset"] for claim in claims],
        [_since(evidence, claim["topic"], claim["partition"]) for claim in claims],
    )
    found = []
    for row in await connection.fetch(sql.audit.MISPLACED_PARKED, evidence.group, *known, MOST_FINDINGS):
        event = f"the event of {_shown(row['key'])} at offset {row['offset']} waits in a lane, but"
        fault = "its partition has no claim" if row["next_offset"] is None else f"the claim is at {row['next_offset']}"
        found.append(Finding("lanes", row["topic"], row["partition"], f"{event} {fault}."))
    for row in await connection.fetch(sql.audit.MISPLACED_DEAD, evidence.group, *known, MOST_FINDINGS):
        detail = f"the event at offset {row['offset']} was given up on, but the claim is at {row['next_offset']}."
        found.append(Finding("lanes", row["topic"], row["partition"], detail))
    return found


async def _overtaken(connection: Connection, evidence: Evidence) -> list[Finding]:
    places = list(evidence.totals)
    since = [_since(evidence, *place) for place in places]
    topics, numbers = [topic for topic, _ in places], [number for _, number in places]
    rows = await connection.fetch(sql.audit.OVERTAKEN, evidence.group, topics, numbers, since, MOST_FINDINGS)
    return [
        Finding(
            "lanes",
            row["topic"],
            row["partition"],
            f"the event of {_shown(row['key'])} at offset {row['offset']} waits behind that of {row['overtook']}.",
        )
        for row in rows
    ]


async def _miscounted(connection: Connection, evidence: Evidence) -> list[Finding]:
    """Compare what entered and left the lanes with what is there, where the ledger is known from its first row."""
    rows = await connection.fetch(sql.audit.PARKED_BY_PARTITION, evidence.group)
    waiting = {row["partition"]: row["events"] for row in rows}
    found = []
    for number in sorted({claim["partition"] for claim in evidence.claims}):
        totals = [total for (_, partition), total in evidence.totals.items() if partition == number]
        started = [claim for claim in evidence.claims if claim["partition"] == number and claim["sequence"]]
        is_whole = all(total["first_sequence"] == 1 and total["moved_at"] is None for total in totals)
        if len(totals) != len(started) or not is_whole:
            continue
        entered, left = sum(total["entered"] for total in totals), sum(total["left"] for total in totals)
        if entered - left != waiting.get(number, 0):
            detail = f"{entered} events have entered lanes and {left} left, but {waiting.get(number, 0)} wait."
            found.append(Finding("lanes", None, number, detail))
    return found


def _since(evidence: Evidence, topic: str, partition: int) -> datetime:
    """Return from when on positions can be compared with the claim: what is older may be of another log."""
    total = evidence.totals.get((topic, partition))
    if total is None:
        return NEVER
    since: datetime = total["since"]
    return max(since, total["moved_at"] or since)


def _shown(key: bytes) -> str:
    return repr(key.decode(errors="backslashreplace"))[:200]
