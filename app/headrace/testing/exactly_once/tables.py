"""A team's own tables in a trial: all of it happens in one transaction of a real database, and is rolled back.

A batch is a savepoint in it: released where the trial commits, rolled back where it does not. So each trial begins with
the same rows, and none leaves any.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from headrace.database.pool import Connection, open_session
from headrace.settings import Settings

_DAY_SECONDS = 86_400.0

_TABLES = """
select format('%I.%I', namespace.nspname, class.relname) as table, array(
    select attname::text from pg_attribute
    where attrelid = class.oid and attnum > 0 and (attidentity <> '' or exists(
        select from pg_attrdef where adrelid = class.oid and adnum = attnum
          and pg_get_expr(adbin, adrelid) ~ '[(]|CURRENT'
    ))
) as made
from pg_class as class join pg_namespace as namespace on namespace.oid = class.relnamespace
where class.relkind in ('r', 'p') and not class.relispartition
  and namespace.nspname not in ('headrace', 'information_schema') and namespace.nspname !~ '^pg_'
order by 1
"""
"""The tables, and the columns that the database fills in by itself: a number or a time is another one each time."""


class Tables:
    """The rows of all tables that are not the platform's; nothing at all without a database."""

    def __init__(self, database: str | None, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._session: Connection | None = None
        self.connection: Connection | None = None
        """The connection inside the trial's transaction; None without a database."""

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[None]:
        """Begin a transaction, and roll it back at the end."""
        if self._database is None:
            yield
            return
        if self._session is None:
            self._session = await open_session(self._settings, self._database, idle_seconds=_DAY_SECONDS)
        transaction = self._session.transaction()
        await transaction.start()
        self.connection = self._session
        try:
            yield
        finally:
            self.connection = None
            await transaction.rollback()

    @asynccontextmanager
    async def batch(self, *, is_kept: bool) -> AsyncIterator[Connection | None]:
        """Lend the connection for one batch, whose rows stay in the trial or are taken back."""
        if self.connection is None:
            yield None
            return
        savepoint = self.connection.transaction()
        await savepoint.start()
        try:
            yield self.connection
        except BaseException:
            await savepoint.rollback()
            raise
        await (savepoint.commit() if is_kept else savepoint.rollback())

    async def rows(self, ignored: Collection[str]) -> dict[str, Counter[str]]:
        """Return how often each row, as JSON, is in each table; without ignored columns, and those that are made."""
        found: dict[str, Counter[str]] = {}
        if self.connection is None:
            return found
        for name, made in await self.connection.fetch(_TABLES):
            left_out = [*made, *ignored]
            query = f"select to_jsonb(each) - $1::text[] as row from {name} as each"  # noqa: S608 - quoted by Postgres
            rows = await self.connection.fetch(query, left_out)
            found[name] = Counter(json.dumps(json.loads(row["row"]), ensure_ascii=False) for row in rows)
        return found

    async def close(self) -> None:
        """Disconnect."""
        if self._session is not None:
            self._session.terminate()


def more_in(first: Counter[str] | None, second: Counter[str] | None) -> list[Any]:
    """Return the rows of a table that the first has and the second has not."""
    return [json.loads(row) for row in ((first or Counter()) - (second or Counter())).elements()]
