"""A handler's SQLAlchemy session writes in the batch's own transaction, whatever fails and runs again."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends
from sqlalchemy import JSON, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from headrace import Event, Headrace, State, Transaction
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from headrace.sqlalchemy import BatchSession, session
from tests.support.platform import (
    Notes,
    execute,
    fetch,
    noted,
    pages,
    publish,
    running,
    settings_for,
    spread,
    until_settled,
    value,
)

PAGES = [f"page-{number}" for number in range(6)]
TABLE = (
    "create table line (page text not null, number integer not null, tags jsonb not null, note json, "
    "primary key (page, number))"
)


class Base(DeclarativeBase):
    pass


class Line(Base):
    __tablename__ = "line"
    page: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    tags: Mapped[list[str]] = mapped_column(JSONB)
    note: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class Lines:
    """A repository, as teams write them: it knows nothing of events."""

    def __init__(self, db: AsyncSession) -> None:
        self.db = db

    async def add(self, page: str, number: int) -> None:
        """Write one line; it counts those that came before."""
        before = await self.db.scalars(select(Line).where(Line.page == page))
        self.db.add(Line(page=page, number=number, tags=[page, str(len(before.all()))], note={"n": number}))


def lines(db: BatchSession) -> Lines:
    """A dependency of a handler that has a dependency itself."""
    return Lines(db)


def ledger(settings: Settings, topic: str, failing: set[int] | None = None) -> Headrace:
    """Return a service that writes a line with SQLAlchemy, and a state, for each event."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    async def write(
        event: Noted, kept: Annotated[Lines, Depends(lines)], db: BatchSession, notes: State[Notes], tx: Transaction
    ) -> None:
        assert kept.db is db, "one session for the event, whoever asks"
        await kept.add(event.page, event.number)
        await db.flush()
        if event.number in (failing or ()):
            raise ValueError("not this one")
        assert await tx.fetchval("select count(*) from line where page = $1", event.page) > 0
        notes.numbers.append(event.number)

    return platform


async def written(runtime: Any) -> dict[str, list[int]]:
    """Return the numbers of each page's lines."""
    found: dict[str, list[int]] = {}
    for row in await fetch(runtime, "select page, number from line order by page, number"):
        found.setdefault(row["page"], []).append(row["number"])
    return found


async def test_lines_and_states_commit_together(database_url: str, topic_name: str) -> None:
    """One event fails each time, so that its neighbours run again; nothing of them is there twice."""
    await execute(database_url, TABLE)
    platform = ledger(settings_for(database_url, retry_attempts=2), topic_name, failing={3})
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, PAGES, 6))
        await until_settled(runtime, "notes")
        expected = {page: [1, 2, 4, 5, 6] for page in PAGES}
        assert await written(runtime) == await pages(runtime) == expected
        assert await value(runtime, "select tags from line where page = 'page-1' and number = 6") == '["page-1", "4"]'
        assert await value(runtime, "select count(*) from headrace.dead_letter") == len(PAGES)


async def test_a_refused_row_is_the_events_own_fault(database_url: str, topic_name: str) -> None:
    """The flush at the end of the handler raises; its neighbours are written."""
    await execute(database_url, TABLE)
    await execute(database_url, "insert into line values ('page-2', 1, '[]', null)")
    platform = ledger(settings_for(database_url, retry_attempts=2), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, PAGES, 2))
        await until_settled(runtime, "notes")
        assert await written(runtime) == {page: [1, 2] for page in PAGES}
        error = await value(runtime, "select error from headrace.dead_letter")
        assert "duplicate key value" in error
        assert await pages(runtime) == {page: [2] if page == "page-2" else [1, 2] for page in PAGES}


async def test_what_fails_in_a_savepoint_can_be_tolerated(database_url: str, topic_name: str) -> None:
    """With SQLAlchemy and with asyncpg's connection; an error that is swallowed without one fails the event."""
    await execute(database_url, TABLE)
    platform = Headrace("notebook", settings_for(database_url, retry_attempts=2))

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    twice = "insert into line values ('x', 1, '[]', null), ('x', 1, '[]', null)"

    @platform.subscription("notes").on(Noted)
    async def write(event: Noted, tx: Transaction, notes: State[Notes]) -> None:
        if event.page == "sqlalchemy":
            async with session(tx) as db:
                with pytest.raises(IntegrityError):
                    async with db.begin_nested():
                        await db.execute(text(twice))
                await db.execute(text("insert into line values ('sqlalchemy', 1, '[]', null)"))
        elif event.page == "asyncpg":
            try:
                async with tx.connection.transaction():
                    await tx.connection.execute(twice)
            except Exception:
                await tx.connection.execute("insert into line values ('asyncpg', 1, '[]', null)")
        else:
            with pytest.raises(Exception, match="duplicate key"):
                await tx.connection.execute(twice)
        notes.numbers.append(event.number)

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, page, 1) for page in ("sqlalchemy", "asyncpg", "swallowed")))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"sqlalchemy": [1], "asyncpg": [1]}
        assert await written(runtime) == {"sqlalchemy": [1], "asyncpg": [1]}
        assert "duplicate key" in await value(runtime, "select error from headrace.dead_letter")


async def test_a_lost_session_blames_no_event(database_url: str, topic_name: str) -> None:
    """The server ends the session under the first runs of a handler: the batch is tried again, nothing is parked."""
    await execute(database_url, TABLE)
    platform = Headrace("notebook", settings_for(database_url, retry_attempts=2))
    killed = 0

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    async def write(event: Noted, db: BatchSession, notes: State[Notes]) -> None:
        nonlocal killed
        if killed < 2:
            killed += 1
            await db.execute(text("select pg_terminate_backend(pg_backend_pid())"))
        notes.numbers.append(event.number)

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "page-1", 1), noted(topic_name, "page-1", 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"page-1": [1, 2]}
        assert killed == 2
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0
