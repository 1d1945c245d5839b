"""Queries on outages, and the one that only asks whether Postgres answers."""

from __future__ import annotations

from headrace import sql
from tests.simulation.store.statements.model import Work, reads, writes
from tests.simulation.store.tables import Row
from tests.simulation.store.transaction import Transaction


@writes(sql.outage.TELL, "INSERT 0")
def tell(t: Transaction, group: str, owner: str, handler: str, error: str, since: float) -> Work:
    yield ("outage", (group, owner))
    row = {"subscription": group, "owner": owner, "handler": handler, "error": error, "since": since}
    t.put("outage", (group, owner), row)
    return 1


@writes(sql.outage.OVER, "DELETE")
def over(t: Transaction, group: str, owner: str) -> Work:
    if t.get("outage", (group, owner)) is None:
        return 0
    yield ("outage", (group, owner))
    if t.get("outage", (group, owner)) is None:
        return 0
    t.put("outage", (group, owner), None)
    return 1


@reads("select 1")
def one(t: Transaction) -> list[Row]:
    return [Row(one=1)]


@reads("select")
def nothing(t: Transaction) -> list[Row]:
    return [Row()]
