"""A disk is full: nothing is accepted that cannot be kept, and all goes on when there is room."""

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
from headrace.errors import TransportError
from headrace.log.kafka import KafkaLog
from headrace.log.ports import TopicPartition
from tests.integration.guards.support import assert_unavailable
from tests.integration.log.support import fetch_some, kafka_log, records, values
from tests.support.auditing import assert_promises_hold
from tests.support.disks import SmallDisk, small_disk
from tests.support.kafka import KafkaServer
from tests.support.platform import client, notebook, pages, running, sample, settings_for, until_settled
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

MEGABYTES = 160
FILLER_BYTES = 20_000
START_SECONDS = 90
"""A server that recovers waits up to 60 s for its own checkpointer before it gives up, and is started again."""
WHY = "a disk that can be full has to be mounted, which takes root"


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[PostgresServer, SmallDisk]]:
    """A PostgreSQL whose disk is small."""
    with small_disk(tmp_path / "disk", megabytes=MEGABYTES) as disk:
        if disk is None:
            pytest.skip(WHY)
        made = PostgresServer(parent=disk.folder)
        try:
            await made.start()
            yield made, disk
        finally:
            await made.stop()


async def test_full_disk_of_a_broker_loses_nothing_acknowledged(tmp_path: Path, topic_name: str) -> None:
    """Kafka ends when it cannot write its log; publishers are told, and go on when it is back."""
    with small_disk(tmp_path / "disk", megabytes=64) as disk:
        if disk is None:
            pytest.skip(WHY)
        broker = KafkaServer(properties={"log.dirs": str(disk.folder / "data")})
        try:
            await broker.start()
            async with kafka_log(broker.url, request_timeout_seconds=2) as log:
                await log.create(topic_name, 1)
                disk.fill()
                kept = 0
                while await _is_kept(log, topic_name, kept):
                    kept += 1
                    assert kept < 10_000, "the disk is full"
                disk.free()
                await broker.restart()
                await until(lambda: _is_kept(log, topic_name, kept), "publishing works again", 60)
                reader = await log.reader({TopicPartition(topic_name, 0): 0})
                found: list[int] = []
                while kept not in found:
                    found += values(await fetch_some(reader))
                await reader.close()
                assert list(dict.fromkeys(found)) == list(range(kept + 1))
        finally:
            await broker.stop()


async def _is_kept(log: KafkaLog, topic: str, number: int) -> bool:
    try:
        return bool(await log.publish(records(topic, [number])))
    except TransportError:
        return False


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
            try:
                await until(lambda: _is_accepted_again(postgres, http, last), "the event is accepted", START_SECONDS)
            except TimeoutError as error:
                error.add_note(postgres.log.read_text()[-4_000:])
                raise
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
