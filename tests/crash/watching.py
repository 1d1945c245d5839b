"""Looks at a run from outside, all the time: changes of claims, what the server's log tells, how far everything is."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from headrace import sql
from headrace.database.failures import CALL_ERRORS, classify
from headrace.errors import StateUnavailableError
from tests.crash.cluster import Cluster, resident_bytes
from tests.crash.history import ClaimChange, History, Refusal, Sample
from tests.support.link import process_at

SECONDS = 0.25
"""Between two looks."""
FORGET = "delete from crash.claim_change where xact < $1::text::xid8"
READ = """
select *, pg_snapshot_xmin(pg_current_snapshot())::text as until from crash.claim_change
where xact < pg_snapshot_xmin(pg_current_snapshot()) order by id
"""
"""Only transactions that have ended: no row with a lower id can still appear."""
PROGRESS = """
select (select coalesce(sum(next_offset), 0) from headrace.claim where subscription = $1)::bigint as applied,
       (select count(*) from pg_stat_activity where datname = current_database() and application_name = 'headrace')
           as connections
"""
REFUSED = re.compile(r"(127\.[\d.]+)\(\d+\) LOG:  crash: no claim changed by (.*)")
SILENT = re.compile(r"(127\.[\d.]+)\(\d+\) FATAL:  terminating connection due to idle-in-transaction timeout")


def plain(statement: str) -> str:
    """Return the statement on one line, as the server's log has it."""
    return re.sub(r"\s+", " ", statement).strip()


MOVES = {plain(sql.claim.ADVANCE), plain(sql.claim.ADVANCE_WITH_ROW), plain(sql.claim.BEGIN_APPLYING)}
"""Statements that only the owner of a claim makes."""


class Watch:
    """Fills the history while its task runs; survives the end of every server."""

    def __init__(self, cluster: Cluster, history: History, began: float) -> None:
        self._cluster = cluster
        self._history = history
        self._began = began
        self._connection: asyncpg.Connection | None = None
        self._read_bytes = 0
        self.applied = 0
        """Offsets behind which the lists are, in all partitions."""
        self.ended: list[int] = []
        """The process behind each session that Postgres has ended since it was silent amid a transaction."""
        self._known: set[int] = set()
        """Rows that were read, and that Postgres may still have."""
        self._lives = 0
        self._looking = asyncio.Lock()

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    async def run(self) -> None:
        """Look, until it is cancelled."""
        while True:
            with suppress(*CALL_ERRORS):
                async with self._looking:
                    await self.look()
            await asyncio.sleep(SECONDS)

    async def look(self) -> None:
        """Look once. Raises: CALL_ERRORS."""
        self.read_log()
        connection = await self._connect()
        try:
            rows = await connection.fetch(READ)
            self._history.changes += [self._change(row) for row in rows if row["id"] not in self._known]
            self._known.update(row["id"] for row in rows)
            if rows:
                await connection.execute(FORGET, rows[-1]["until"])
                self._known.clear()
            row = await connection.fetchrow(PROGRESS, self._cluster.group)
        except BaseException:
            connection.terminate()
            self._connection = None
            raise
        assert row is not None
        self.applied = row["applied"]
        self._sample(row["connections"])

    @asynccontextmanager
    async def another_life(self) -> AsyncIterator[None]:
        """Put the database back in the block: what the server noted before the copy is not noted again."""
        async with self._looking:
            with suppress(*CALL_ERRORS):
                await self.look()
            yield
            await self.fetch("delete from crash.claim_change")
            self._known.clear()
            self._lives += 1
            (row,) = await self.fetch(PROGRESS, self._cluster.group)
            self.applied = row["applied"]

    async def fetch(self, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """Return the rows of a query, as soon as the server answers."""
        while True:
            try:
                connection = await asyncpg.connect(self._cluster.url, timeout=5)
            except CALL_ERRORS:
                await asyncio.sleep(SECONDS)
                continue
            try:
                return list(await connection.fetch(query, *arguments))
            except CALL_ERRORS as error:
                if not isinstance(classify(error), StateUnavailableError):
                    raise
                await asyncio.sleep(SECONDS)
            finally:
                connection.terminate()

    def read_log(self) -> None:
        """Read what the server has written since the last time."""
        file: Path = self._cluster.postgres.log
        if not file.exists():
            return
        if file.stat().st_size < self._read_bytes:
            self._read_bytes = 0  # a new file
        with file.open("rb") as log:
            log.seek(self._read_bytes)
            data = log.read()
        whole = data.rpartition(b"\n")[0]
        self._read_bytes += len(whole)
        text = whole.decode(errors="replace")
        for address, statement in REFUSED.findall(text):
            if statement.strip() in MOVES:
                self._history.refusals.append(Refusal(self.now, process_at(address), statement.strip()))
        self.ended += map(process_at, SILENT.findall(text))

    async def _connect(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._cluster.url, timeout=2, command_timeout=5)
        return self._connection

    def _change(self, row: asyncpg.Record) -> ClaimChange:
        return ClaimChange(
            row["id"],
            row["at"].timestamp() - self._history.began_at,
            row["subscription"],
            row["topic"],
            row["partition"],
            row["owner"],
            row["epoch"],
            str(row["token"]),
            row["next_offset"],
            row["sequence"],
            process_at(row["address"]),
            self._lives,
        )

    def _sample(self, connections: int) -> None:
        workers = [worker for worker in self._cluster.workers if worker.service.is_running]
        largest = max((resident_bytes(worker.pid) for worker in workers), default=0)
        sent = self._history.sent.produced
        self._history.samples.append(Sample(self.now, sent, self.applied, len(workers), connections, largest))
