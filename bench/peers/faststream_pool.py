"""What FastStream's own documentation has an application do to connect to Postgres."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
from faststream import ContextRepo


def pool_of(least: int, most: int) -> Callable[[ContextRepo], AbstractAsyncContextManager[None]]:
    """Return a lifespan that keeps a pool of so many connections in the context."""

    @asynccontextmanager
    async def lifespan(context: ContextRepo) -> AsyncIterator[None]:
        async with asyncpg.create_pool(os.environ["DATABASE"], min_size=least, max_size=most) as pool:
            context.set_global("pool", pool)
            yield

    return lifespan
