"""The routes' sessions, on the database that the platform works on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from notes.events import events


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the platform, and beside it an engine for the routes."""
    async with events.lifespan(app):
        engine = create_async_engine(make_url(events.database_url).set(drivername="postgresql+asyncpg"))
        app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
        yield
        await engine.dispose()


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    """Lend a session whose transaction commits when the route has returned."""
    async with request.app.state.sessions() as session, session.begin():
        yield session


Db = Annotated[AsyncSession, Depends(open_session, scope="function")]
