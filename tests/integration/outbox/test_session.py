"""An event that is published through a SQLAlchemy session is one more object of it: AsyncSession, Session, SQLModel."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
import sqlmodel
from fastapi import Depends
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelSession

from headrace import Headrace
from headrace.errors import ConfigurationError
from headrace.log.memory import MemoryLog
from tests.support.orders import Placed, books, create_orders, order_service
from tests.support.platform import running, settings_for
from tests.support.routes import application, caller
from tests.support.waiting import until


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    number: Mapped[int]


class Parcel(sqlmodel.SQLModel, table=True):
    __tablename__ = "parcels"
    id: int | None = sqlmodel.Field(default=None, primary_key=True)
    customer: str


@pytest_asyncio.fixture
async def events(database_url: str) -> AsyncIterator[Headrace]:
    await create_orders(database_url)
    platform = order_service(settings_for(database_url))
    async with running(platform, MemoryLog()):
        yield platform


@pytest_asyncio.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    opened = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://"))
    yield opened
    await opened.dispose()


@pytest.fixture
def plain_engine(database_url: str) -> Iterator[Engine]:
    opened = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    yield opened
    opened.dispose()


async def has_arrived(platform: Headrace, expected: dict[str, list[int]]) -> None:
    runtime = platform.runtime
    assert runtime is not None

    async def is_so() -> bool:
        return await books(runtime) == expected

    await until(is_so, f"{expected} has arrived")


async def test_orders_and_events_commit_together(events: Headrace, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        for number in range(20):
            session.add(Order(customer="ada", number=number))
            assert events.outbox(session).publish(Placed(customer="ada", number=number))
            if number % 5 == 4:
                await session.commit()
        events.outbox(session).publish(Placed(customer="ada", number=20))
        await session.rollback()
        events.outbox(session).publish(Placed(customer="ada", number=21))
        await session.commit()
        assert len((await session.scalars(select(Order))).all()) == 20
    await has_arrived(events, {"ada": [*range(20), 21]})


async def test_a_savepoint_that_is_rolled_back_takes_its_events_along(events: Headrace, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        events.outbox(session).publish(Placed(customer="ada", number=1))
        with suppress(IntegrityError):
            async with session.begin_nested():
                events.outbox(session).publish(Placed(customer="ada", number=2))
                session.add(Order(customer=None, number=2))
        async with session.begin_nested():
            events.outbox(session).publish(Placed(customer="ada", number=3), id="kept")
        events.outbox(session).publish(Placed(customer="ada", number=4), key="bob")
    await has_arrived(events, {"ada": [1, 3], "bob": [4]})


async def test_a_synchronous_session_in_a_thread_works_the_same(events: Headrace, plain_engine: Engine) -> None:
    def work() -> None:
        with Session(plain_engine) as session, session.begin():
            session.add(Order(customer="ada", number=1))
            events.outbox(session).publish(Placed(customer="ada", number=1))
            events.outbox(session).publish(Placed(customer="ada", number=2))

    await asyncio.to_thread(work)
    await has_arrived(events, {"ada": [1, 2]})


async def test_a_route_publishes_in_the_session_of_its_own_dependency(events: Headrace, engine: AsyncEngine) -> None:
    """As a SQLModel service is written: the dependency opens and commits, and knows nothing of events."""
    async with engine.begin() as connection:
        await connection.run_sync(sqlmodel.SQLModel.metadata.create_all)

    async def open_session() -> AsyncIterator[SQLModelSession]:
        async with SQLModelSession(engine) as session, session.begin():
            yield session

    app, opened = application(events), Depends(open_session, scope="function")

    @app.post("/parcels/{customer}")
    async def send(customer: str, session: SQLModelSession = opened) -> dict[str, str]:
        session.add(Parcel(customer=customer))
        event = events.outbox(session).publish(Placed(customer=customer, number=1))
        if customer == "bob":
            raise ZeroDivisionError
        return {"event": event}

    async with caller(app) as client:
        assert (await client.post("/parcels/ada")).status_code == 200
        assert (await client.post("/parcels/bob")).status_code == 500
        assert (await client.post("/parcels/cleo")).status_code == 200
    await has_arrived(events, {"ada": [1], "cleo": [1]})
    async with SQLModelSession(engine) as session:
        assert {each.customer for each in await session.exec(sqlmodel.select(Parcel))} == {"ada", "cleo"}


async def test_many_sessions_of_one_customer_arrive_in_commit_order(events: Headrace, engine: AsyncEngine) -> None:
    """Each locks the customer's row, so that its number tells the order of the commits."""

    async def place(session: AsyncSession) -> None:
        async with session.begin():
            first = await session.get_one(Order, 1, with_for_update=True)
            first.number += 1
            events.outbox(session).publish(Placed(customer="ada", number=first.number))

    async with AsyncSession(engine) as session, session.begin():
        session.add(Order(customer="ada", number=0))

    async def repeat() -> None:
        async with AsyncSession(engine) as session:
            for _ in range(10):
                await place(session)

    await asyncio.gather(*(repeat() for _ in range(4)))
    await has_arrived(events, {"ada": list(range(1, 41))})


async def test_something_else_is_refused_with_what_to_write(events: Headrace) -> None:
    wrong: Any = object()
    with pytest.raises(ConfigurationError, match=r"AsyncSession or Session.*events\.transaction\(\)"):
        events.outbox(wrong)


def test_sqlalchemy_is_imported_only_if_it_is_used() -> None:
    assert importlib.util.find_spec("sqlalchemy") is not None
    code = "import sys, headrace; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
