"""Audits one subscription in one snapshot of the database."""

from __future__ import annotations

import asyncio
from time import perf_counter

from headrace import sql
from headrace.audit.findings import Report
from headrace.audit.lanes import audit_lanes, audit_states
from headrace.audit.ledger import audit_emits, audit_ids, audit_ranges, read_evidence
from headrace.database.pool import Connection
from headrace.errors import StateUnavailableError

LIMIT_SECONDS = 25.0
"""The whole audit: as long as its snapshot stands, no row version that it can see is cleaned up. `headrace audit --url`
waits for an answer a little longer than this."""
SESSION = "set local work_mem = '32MB'; set local max_parallel_workers_per_gather = 0"
"""One process of Postgres works for an audit; the batches need the others."""


async def audit(connection: Connection, group: str, window_ids: int) -> Report:
    """Return what is wrong with a subscription, as of now; reads only.

    `window_ids` is HEADRACE_ENGINE_DEDUPE_WINDOW_IDS. Raises: StateUnavailableError (it takes longer than
    `LIMIT_SECONDS`), asyncpg's errors.
    """
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await compare(connection, group, window_ids)
    except TimeoutError as error:
        raise StateUnavailableError(f"the audit of {group} was not done after {LIMIT_SECONDS:g} s.") from error


async def compare(connection: Connection, group: str, window_ids: int) -> Report:
    """Return what is wrong, as the caller's transaction sees it."""
    started = perf_counter()
    await connection.execute(SESSION)
    evidence = await read_evidence(connection, group)
    ids, repeated = await audit_ids(connection, evidence, window_ids)
    findings = [
        *audit_ranges(evidence),
        *audit_emits(evidence),
        *repeated,
        *await audit_lanes(connection, evidence),
        *await audit_states(connection, group),
    ]
    rows = sum(total["rows"] for total in evidence.totals.values())
    return Report(group, evidence.at, perf_counter() - started, len(evidence.claims), rows, ids, findings)


async def groups(connection: Connection) -> list[str]:
    """Return every subscription that has claims, by its group."""
    return [row["subscription"] for row in await connection.fetch(sql.claim.GROUPS)]
