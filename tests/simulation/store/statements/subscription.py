"""Queries on what operators asked of subscriptions."""

from __future__ import annotations

from headrace import sql
from tests.simulation.store.statements.model import Work, reads, writes
from tests.simulation.store.tables import Row
from tests.simulation.store.transaction import Transaction


@reads(sql.subscription.REQUESTS)
def requests(t: Transaction, group: str) -> list[Row]:
    row = t.get("subscription", (group,))
    return [] if row is None else [Row(paused=row["paused"], retry_requested_at=row["retry_requested_at"])]


@writes(sql.subscription.SET_PAUSED, "INSERT 0")
def set_paused(t: Transaction, group: str, paused: bool) -> Work:
    yield ("subscription", (group,))
    row = t.get("subscription", (group,)) or {"subscription": group, "retry_requested_at": None}
    t.put("subscription", (group,), row | {"paused": paused})
    return 1


@reads(sql.subscription.LAST_AUDIT)
def last_audit(t: Transaction, group: str) -> list[Row]:
    return [] if t.get("subscription", (group,)) is None else [Row(audited_at=None, mismatches=None)]
