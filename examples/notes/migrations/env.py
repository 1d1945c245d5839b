"""Alembic's side of the service: `HEADRACE_DATABASE=postgresql://... alembic upgrade head`."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, NullPool, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from notes.models import Base


def run(connection: Connection) -> None:
    """Apply what is missing."""
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    """Connect to the database that the platform works on."""
    address = context.config.get_main_option("sqlalchemy.url") or os.environ["HEADRACE_DATABASE"]
    engine = create_async_engine(make_url(address).set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()


asyncio.run(main())
