"""The disk of Postgres is full: nothing is accepted that cannot be kept, and all goes on when there is room."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio

from headrace.database.failures import CALL_ERRORS
from tests.integration.guards.support import assert_unavailable
from tests.support.auditing import assert_promises_hold
from tests.support.disks import SmallDisk, small_disk
from tests.support.platform import client, notebook, pages, running, sample, settings_for, until_settled
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

MEGABYTES = 160
FILLER_BYTES = 20_000


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[PostgresServer, SmallDisk]]:
    """A PostgreSQL whose disk is small."""
    with small_disk(tmp_path / "disk", megabytes=MEGABYTES) as disk:
        if disk is None:
            pytest.skip("a disk that can be full has to be mounted, which takes root")
        made = PostgresServer(parent=disk.folder)
        try:
            await made.start()
            yield made, disk
        finally:
            await made.stop()


async def test_what_was_accepted_is_applied_once_there_is_room(
    server: tuple[PostgresServer, SmallDisk], topic_name: str
) -> None:
    """The embedded log and the states are on the disk; then the server has no room for its own log, and ends."""
    postgres, disk = server
    async with postgres.database() as url:
        platform = notebook(settings_for(url, "embedded"), topic_name)
        async with running(platform) as runtime, client(platform) as http:
            assert await _is_accepted(http, 1)
            await until_settled(runtime, "notes")
            disk.fill()
            last = 2
            while await _is_accepted(http, last):
                last += 1
            assert not await _is_accepted(http, last)
            superuser = await asyncpg.connect(postgres.of_superuser(url))
            with suppress(*CALL_ERRORS):
                for _ in range(5):
                    await superuser.execute("select pg_logical_emit_message(false, '', ''); select pg_switch_wal()")
            assert superuser.is_closed(), "the server had room for its own log"
            assert not await _is_accepted(http, last)
            disk.free()
            await until(lambda: _is_accepted_again(postgres, http, last), "the event is accepted", 60)
            await until_settled(runtime, "notes", seconds=60)
            assert await pages(runtime) == {"full": list(range(1, last + 1))}
            assert sample(runtime, "events_parked_total") == 0
        await assert_promises_hold(url)


async def _is_accepted_again(postgres: PostgresServer, http: httpx.AsyncClient, number: int) -> bool:
    """Start the server if it has ended, as whatever supervises it does, and publish."""
    if postgres.pid is None:
        await postgres.shut_down()
        await postgres.start()
    return await _is_accepted(http, number)


async def _is_accepted(http: httpx.AsyncClient, number: int) -> bool:
    """Publish an event that takes room. Returns True for 202, False for a 503 with Retry-After."""
    filler = random.Random(number).randbytes(FILLER_BYTES).hex()
    answer = await http.post(
        "/events/noted",
        json={"page": "full", "number": number, "filler": filler},
        headers={"Idempotency-Key": str(number)},
    )
    if answer.status_code != 202:
        assert_unavailable(answer)
    return answer.status_code == 202
