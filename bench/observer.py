"""What a contender has done, as its database tells from outside."""

from __future__ import annotations

import json
from typing import NamedTuple

import asyncpg

from bench.contenders import Contender, Store
from tests.support.wallets import Expected

Wallet = tuple[int, int, int, int]
"""Balance, credits, debits, applied."""

_APPLIED = {
    Store.HEADRACE: "select coalesce(sum(next_offset), 0) from headrace.claim",
    Store.TABLE: "select coalesce(sum(applied), 0) from wallet",
}
_COST = """
select pg_current_wal_lsn() - '0/0'::pg_lsn as wal,
       pg_total_relation_size('inbox')
           + (select sum(pg_total_relation_size(relid)) from pg_partition_tree('headrace.ledger')) as ledger,
       (select xact_commit from pg_stat_database where datname = current_database()) as commits
"""


_WALLETS = "select distinct key, data from headrace.state where state = 'wallet' and (data->>'applied')::int > 0"
"""Without those that were there before the run."""


class Cost(NamedTuple):
    """What Postgres has written so far."""

    wal_bytes: int
    ledger_bytes: int
    commits: int

    def since(self, before: Cost) -> Cost:
        """Return what was written in between."""
        return Cost(*(new - old for new, old in zip(self, before, strict=True)))


NOTHING = Cost(0, 0, 0)


class Observer:
    """Looks at one contender's tables over a connection of its own."""

    def __init__(self, connection: asyncpg.Connection, contender: Contender) -> None:
        self._connection = connection
        self._store = contender.store
        self._applications = contender.applications
        self._processes = contender.processes

    async def applied(self) -> int:
        """Return how many events have taken effect."""
        return int(await self._connection.fetchval(_APPLIED[self._store])) // self._applications

    async def has_begun(self) -> bool:
        """Tell whether an event has taken effect, and each process has a part; cheaper than to count events."""
        if self._store is Store.HEADRACE:
            owners = await self._connection.fetchval("select count(distinct owner) from headrace.claim")
            return owners >= self._processes and await self.applied() > 0
        return bool(await self._connection.fetchval("select exists (select from wallet)"))

    async def cost(self) -> Cost:
        """Return what Postgres has written so far; its own counts are up to date within a second."""
        row = await self._connection.fetchrow(_COST)
        assert row is not None
        return Cost(int(row["wal"]), int(row["ledger"]), int(row["commits"]))

    async def wallets(self) -> dict[str, Wallet]:
        """Return every wallet to which an event was applied."""
        if self._store is Store.HEADRACE:
            rows = await self._connection.fetch(_WALLETS)
            states = {row["key"]: json.loads(row["data"]) for row in rows}
            assert len(states) == len(rows), "two subscriptions have different wallets"
            return {key: (w["balance"], w["credits"], w["debits"], w["applied"]) for key, w in states.items()}
        rows = await self._connection.fetch("select customer, balance, credits, debits, applied from wallet")
        return {row[0]: (row[1], row[2], row[3], row[4]) for row in rows}

    async def fault(self, expected: Expected) -> str:
        """Return what is wrong with the wallets: each is what its events come to, every one applied once."""
        wanted = {key: (w.balance, w.credits, w.debits, w.applied) for key, w in expected.wallets.items()}
        found = await self.wallets()
        for key in sorted(wanted.keys() | found.keys()):
            if wanted.get(key) != found.get(key):
                return f"the wallet of {key} is {found.get(key)}, not {wanted.get(key)}"
        return ""
