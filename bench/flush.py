"""The disk's own flush time, as Postgres sees it: one-row commits."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

import asyncpg

COMMITS = 400


class Flush(NamedTuple):
    """Milliseconds of a one-row commit."""

    p50: float
    p90: float
    p99: float


async def measure_flush(url: str) -> Flush:
    """Return how long one-row commits take."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("create table if not exists bench_flush (number int)")
        times = []
        for number in range(COMMITS):
            started = perf_counter()
            await connection.execute("insert into bench_flush values ($1)", number)
            times.append((perf_counter() - started) * 1000)
        await connection.execute("drop table bench_flush")
    finally:
        await connection.close()
    times.sort()
    return Flush(*(times[int(len(times) * share)] for share in (0.5, 0.9, 0.99)))
