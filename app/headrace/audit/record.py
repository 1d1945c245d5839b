"""Keeps the result of an audit where every process can show it, and tells the log what is wrong."""

from __future__ import annotations

import msgspec

from headrace import sql
from headrace.audit.findings import Finding, Report, shown
from headrace.audit.snapshot import audit
from headrace.database.pool import Connection
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.audit")


async def audit_and_record(connection: Connection, group: str, window_ids: int) -> Report:
    """Audit a subscription, and keep the report in its row. Raises: as `audit`."""
    report = await audit(connection, group, window_ids)
    kept = msgspec.json.encode(shown(report, group)).decode()
    await connection.execute(sql.subscription.NOTE_AUDIT, group, report.audited_at, kept)
    for finding in report.findings:
        log_finding(group, finding)
    return report


def log_finding(group: str, finding: Finding) -> None:
    """Write one entry about a broken promise."""
    logger.error("the audit found a broken promise", subscription=group, **finding._asdict(), advice=finding.advice)
