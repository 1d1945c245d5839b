"""The audit as an assertion: whatever a test did to a platform, its promises hold."""

from __future__ import annotations

import asyncpg

from headrace.audit.snapshot import audit, groups
from headrace.database.pool import Connection

WINDOW_IDS = 200_000


async def assert_promises_hold(database_url: str) -> None:
    """Audit every subscription of a database; a finding fails the test."""
    connection = await asyncpg.connect(database_url)
    try:
        await assert_clean(connection)
    finally:
        await connection.close()


async def assert_clean(connection: Connection) -> None:
    """Audit every subscription of the connection's database; a finding fails the test."""
    for group in await groups(connection):
        report = await audit(connection, group, WINDOW_IDS)
        assert report.findings == [], [finding.detail for finding in report.findings]
