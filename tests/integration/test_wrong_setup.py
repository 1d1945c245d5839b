"""A wrong set-up is told in one sentence that names what to change: never a traceback, never a password.

What only a person can mend ends the process with exit code 1; what may come back by itself is waited for, unready.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from tests.support.kafka import USER, KafkaServer
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.web import http_client

SECRET = "not-the-river-stone"

APP = """
from fastapi import FastAPI
from headrace import Event, Headrace

events = Headrace("small")
both = events.subscription("both")
{types}
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
"""
TYPE = """
class Thing{number}(Event, type="thing.{number}", topic="{topic}"):
    name: str

@both.on(Thing{number})
def take{number}(event: Thing{number}) -> None: ...
"""

Start = Callable[..., Awaitable[Service]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a service with the given settings, unready; whatever becomes of it, it is gone at the end."""
    started: list[Service] = []

    async def start_one(settings: Mapping[str, str], app: str = "shop.service:app", role: str = "all") -> Service:
        service = Service(tmp_path, settings, app=app, role=role)
        started.append(service)
        await service.start(ready=False)
        return service

    yield start_one
    for service in started:
        await service.stop()


def write_app(folder: Path, *topics: str) -> str:
    """Write an application of one subscription that reads the topics; return its MODULE:APP."""
    types = "".join(TYPE.format(number=number, topic=topic) for number, topic in enumerate(topics))
    (folder / "small.py").write_text(APP.format(types=types))
    return "small:app"


def sentence(service: Service, *, names: str) -> str:
    """Return the one line that names the setting, and check that nothing else is told."""
    output = service.output
    assert "Traceback" not in output, output
    assert SECRET not in output
    lines = [line for line in output.splitlines() if names in line]
    assert len(lines) == 1, output
    return lines[0]


async def refused(service: Service, *, names: str) -> str:
    """Return the sentence that the process ended with."""
    assert await service.ended() == 1, service.output
    line = sentence(service, names=names)
    assert line.startswith("headrace: "), line
    return line


async def waiting(service: Service, *, names: str) -> str:
    """Return the readiness probe's sentence, once it names the setting."""

    async def reason() -> str:
        try:
            async with http_client() as client:
                answer = await client.get(f"http://127.0.0.1:{service.management_port}/health/ready")
        except httpx.HTTPError:
            return ""
        assert answer.status_code == 503
        return next((detail for detail in answer.json().get("details", {}).values() if names in detail), "")

    await until(reason, f"readiness names {names}:\n{service.output[-2000:]}", 60)
    return await reason()


async def check_that_it_waits(service: Service, *, names: str) -> None:
    """Check that the door is open and asks to come again, and that the process leaves politely."""
    assert names in await waiting(service, names=names)

    async def answered() -> httpx.Response | None:
        try:
            async with http_client() as client:
                return await client.post(
                    f"{service.url}/events/wallet.credited", json={"customer": "ada", "amount": 1}, timeout=20
                )
        except httpx.ConnectError:
            return None

    await until(answered, "the door is open", 30)
    answer = await answered()
    assert answer is not None
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == "application/problem+json"
    async with http_client() as client:
        live = await client.get(f"http://127.0.0.1:{service.management_port}/health/live?startup")
    assert live.status_code == 200
    assert await service.leave() == 0
    sentence(service, names=names)


async def test_without_a_broker_a_request_is_asked_to_come_again(start: Start, database_url: str) -> None:
    """The service starts and answers."""
    (port,) = free_ports(1)
    service = await start({"HEADRACE_LOG": f"kafka://127.0.0.1:{port}", "HEADRACE_DATABASE": database_url})
    await check_that_it_waits(service, names="HEADRACE_LOG")


async def test_without_a_database_a_request_is_asked_to_come_again(start: Start, kafka: KafkaServer) -> None:
    """The service starts and answers."""
    (port,) = free_ports(1)
    address = f"postgresql://shop:{SECRET}@127.0.0.1:{port}/shop"
    service = await start({"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": address})
    await check_that_it_waits(service, names="HEADRACE_DATABASE")


async def test_worker_without_a_broker_waits_unready(start: Start, database_url: str) -> None:
    (port,) = free_ports(1)
    settings = {"HEADRACE_LOG": f"kafka://127.0.0.1:{port}", "HEADRACE_DATABASE": database_url}
    service = await start(settings, role="worker")
    assert f"127.0.0.1:{port}" in await waiting(service, names="HEADRACE_LOG")
    assert await service.leave() == 0
    sentence(service, names="HEADRACE_LOG")


@pytest.mark.parametrize("role", ["all", "worker", "ingest"])
async def test_wrong_database_password_ends_the_process(
    start: Start, postgres: PostgresServer, kafka: KafkaServer, role: str
) -> None:
    if postgres.is_external:
        pytest.skip("HEADRACE_TEST_POSTGRES may let anybody in")
    parts = urlsplit(postgres.url)
    address = urlunsplit(parts._replace(netloc=f"{parts.username}:{SECRET}@{parts.hostname}:{parts.port}"))
    service = await start({"HEADRACE_DATABASE": address, "HEADRACE_LOG": kafka.url}, role=role)
    assert "HEADRACE_DATABASE_PASSWORD" in await refused(service, names="HEADRACE_DATABASE")


async def test_wrong_kafka_password_ends_the_process(start: Start, kafka: KafkaServer, database_url: str) -> None:
    if kafka.is_external:
        pytest.skip("HEADRACE_TEST_KAFKA may have no listener with passwords")
    service = await start(
        {
            "HEADRACE_LOG": f"kafka://{kafka.sasl_bootstrap}",
            "HEADRACE_DATABASE": database_url,
            "HEADRACE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "HEADRACE_KAFKA_SASL_MECHANISM": "PLAIN",
            "HEADRACE_KAFKA_USERNAME": USER,
            "HEADRACE_KAFKA_PASSWORD": SECRET,
        }
    )
    await refused(service, names="HEADRACE_KAFKA_PASSWORD")


async def test_password_file_that_is_missing_is_named(start: Start, kafka: KafkaServer) -> None:
    settings = {
        "HEADRACE_LOG": kafka.url,
        "HEADRACE_DATABASE": "postgresql://shop@127.0.0.1:1/shop",
        "HEADRACE_DATABASE_PASSWORD_FILE": "/nowhere/password",
    }
    service = await start(settings)
    assert "/nowhere/password" in await refused(service, names="HEADRACE_DATABASE_PASSWORD_FILE")


async def test_topic_with_another_partition_count_is_refused(
    start: Start, kafka: KafkaServer, database_url: str, topic_name: str, tmp_path: Path
) -> None:
    """HEADRACE_PARTITIONS asks for one count and the topic has another."""
    await kafka.create_topic(topic_name, partitions=3)
    settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url, "HEADRACE_PARTITIONS": "4"}
    service = await start(settings, write_app(tmp_path, topic_name))
    line = await refused(service, names="HEADRACE_PARTITIONS")
    assert f"topic {topic_name} has 3 partitions" in line
    assert "set HEADRACE_PARTITIONS=3" in line


async def test_setting_does_not_change_the_embedded_partitions(start: Start, tmp_path: Path) -> None:
    """The topics of an embedded log keep their partitions when HEADRACE_PARTITIONS changes."""
    app = write_app(tmp_path, "things")
    service = await start({"HEADRACE_PARTITIONS": "3"}, app)
    await until(service.is_ready, "the service is ready", 60)
    assert await service.leave() == 0
    again = await start({"HEADRACE_PARTITIONS": "4"}, app)
    assert "topic things has 3 partitions" in await refused(again, names="HEADRACE_PARTITIONS")


async def claims(database_url: str, count: int) -> bool:
    """True once this many partitions have an owner."""
    connection = await asyncpg.connect(database_url)
    try:
        return bool(await connection.fetchval("select count(owner) = $1 from headrace.claim", count))
    finally:
        await connection.close()


async def test_partitions_added_since_the_last_run_are_refused(
    start: Start, kafka: KafkaServer, database_url: str, topic_name: str, tmp_path: Path
) -> None:
    """The process starts, so that the old partitions can be drained; its readiness names the new ones."""
    await kafka.create_topic(topic_name, partitions=3)
    app, settings = write_app(tmp_path, topic_name), {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url}
    service = await start(settings, app)
    await until(service.is_ready, "the service is ready", 60)
    await until(lambda: claims(database_url, 3), "the partitions are claimed, and so accepted")
    assert await service.leave() == 0
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    grown = admin.create_partitions([NewPartitions(topic_name, 5)])[topic_name]
    await asyncio.to_thread(grown.result, 30)
    again = await start(settings, app)
    lines: dict[str, str] = {}

    async def is_refused() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            async with http_client() as client:
                answer = await client.get(f"http://127.0.0.1:{again.management_port}/health/ready")
            lines.update(answer.json().get("details", {}))
        return {"partition_refused:both/3", "partition_refused:both/4"} <= lines.keys()

    await until(is_refused, "readiness names the new partitions", 60)
    line = lines["partition_refused:both/3"]
    assert "has 5 partitions and had 3 when it was last accepted" in line
    assert f"headrace topics --accept {topic_name}" in line
    assert "stop its producers first (5 is no multiple of 3" in line
    assert await again.leave() == 0


async def test_topics_that_are_not_co_partitioned_are_refused(
    start: Start, kafka: KafkaServer, database_url: str, topic_name: str, tmp_path: Path
) -> None:
    """They belong to one subscription."""
    first, second = f"{topic_name}-a", f"{topic_name}-b"
    await kafka.create_topic(first, partitions=3)
    await kafka.create_topic(second, partitions=4)
    settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url}
    service = await start(settings, write_app(tmp_path, first, second))
    line = await refused(service, names="co-partitioned")
    assert f"subscription both reads topics that are not co-partitioned ({first}: 3, {second}: 4)" in line


async def test_unknown_setting_is_refused_with_the_name_that_was_meant(start: Start) -> None:
    service = await start({"HEADRACE_LGO": "kafka://127.0.0.1:9092"})
    assert "did you mean HEADRACE_LOG?" in await refused(service, names="HEADRACE_LGO")


async def test_data_directory_of_a_running_platform_is_refused(start: Start) -> None:
    first = await start({})
    await until(first.is_ready, "the first one is ready", 60)
    second = await start({})
    assert f"pid {first.pid}" in await refused(second, names="HEADRACE_DATA_DIR")
    assert await first.is_ready()


async def test_schema_with_newer_post_migrations_is_refused(
    start: Start, kafka: KafkaServer, database_url: str
) -> None:
    await note_migration(database_url, "post")
    service = await start({"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url})
    line = await refused(service, names="schema")
    assert "is newer than this version of Headrace (it has post/9999_future" in line
    assert line.endswith("run the newer release.")


@pytest.mark.parametrize("migrates", ["true", "false"])
async def test_rollback_runs_on_newer_pre_migrations(
    start: Start, kafka: KafkaServer, database_url: str, migrates: str
) -> None:
    await note_migration(database_url, "pre")
    settings = {
        "HEADRACE_LOG": kafka.url,
        "HEADRACE_DATABASE": database_url,
        "HEADRACE_DATABASE_MIGRATE_ON_START": migrates,
    }
    service = await start(settings)
    await until(service.is_ready, "the service is ready", 60)
    assert await service.leave() == 0


async def note_migration(database_url: str, phase: str) -> None:
    """Note a migration of a newer release as applied."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "insert into headrace.migration (phase, number, name, checksum) values ($1, 9999, 'future', '')", phase
    )
    await connection.close()


async def test_service_waits_for_the_migration_where_a_job_does_it(
    start: Start, kafka: KafkaServer, postgres: PostgresServer
) -> None:
    async with postgres.database(migrated=False) as address:
        settings = {
            "HEADRACE_LOG": kafka.url,
            "HEADRACE_DATABASE": address,
            "HEADRACE_DATABASE_MIGRATE_ON_START": "false",
        }
        service = await start(settings)
        await check_that_it_waits(service, names="headrace migrate")
