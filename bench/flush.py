"""The disk's own flush time, as Postgres sees it: one-row commits."""

from __future__ import annotations

from time import perf_counter

import asyncpg

COMMITS = 400


async def measure_flush(url: str) -> tuple[float, float]:
    """Return p50 and p99 of a one-row commit, in milliseconds."""
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
    return times[len(times) // 2], times[int(len(times) * 0.99)]
