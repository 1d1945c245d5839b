"""A process to kill: starts the embedded PostgreSQL on a folder and prints each row that was committed.

python tests/support/embedded_writer.py FOLDER    # "postgres 4711", then "1", "2", "3", ... for ever
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncpg

from headrace.database.embedded import EmbeddedPostgres


async def main(folder: Path) -> None:
    """Write until killed."""
    server = EmbeddedPostgres(folder)
    connection = await asyncpg.connect(await server.start())
    _say(f"postgres {server.pid} {await connection.fetchval('select pg_backend_pid()')}")
    await connection.execute("create table if not exists written (number bigint primary key)")
    number = await connection.fetchval("select coalesce(max(number), 0) from written")
    while True:
        number += 1
        await connection.execute("insert into written values ($1)", number)
        _say(str(number))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
