"""`headrace migrate`, `topics` and `doctor` on a real Kafka and a real Postgres."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from tests.support.command import headrace
from tests.support.kafka import KafkaServer
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.small_app import publish
from tests.support.waiting import until

Start = Callable[..., Awaitable[Service]]


async def test_migrate_prints_its_steps_and_then_has_nothing_to_do(folder: Path, postgres: PostgresServer) -> None:
    """The second run finds nothing to do and says so."""
    async with postgres.database(migrated=False) as address:
        first = await headrace(folder, "migrate", settings={"HEADRACE_DATABASE": address})
        second = await headrace(folder, "migrate", "--phase", "pre", settings={"HEADRACE_DATABASE": address})
        post = await headrace(folder, "migrate", "--phase", "post", settings={"HEADRACE_DATABASE": address})
    assert first.code == second.code == post.code == 0, first.err + second.err + post.err
    assert first.out.startswith("applied pre/0001_engine\napplied pre/0002_")
    assert first.out.splitlines()[-1].startswith("the schema is at pre 00")
    assert "nothing to do for pre" in second.out
    assert "nothing to do for post" in post.out


async def note_migration(database_url: str, phase: str) -> None:
    """Note a migration of a newer release as applied."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "insert into headrace.migration (phase, number, name, checksum) values ($1, 9999, 'future', '')", phase
    )
    await connection.close()


async def test_migrate_refuses_newer_post_migrations(folder: Path, database_url: str) -> None:
    await note_migration(database_url, "post")
    said = await headrace(folder, "migrate", settings={"HEADRACE_DATABASE": database_url})
    assert said.code == 1
    assert "is newer than this version of Headrace" in said.err
    assert said.err.count("\n") == 1
    code, found = await doctor(folder, HEADRACE_LOG="memory", HEADRACE_DATABASE=database_url)
    assert code == 1
    assert found["database"]["state"] == "FAIL"
    assert found["database"]["advice"] == "run the newer release"


async def test_migrate_and_doctor_accept_newer_pre_migrations(folder: Path, database_url: str) -> None:
    await note_migration(database_url, "pre")
    said = await headrace(folder, "migrate", settings={"HEADRACE_DATABASE": database_url})
    assert said.code == 0, said.err
    assert "a newer release has applied pre/9999_future; this one works with it" in said.out
    code, found = await doctor(folder, HEADRACE_LOG="memory", HEADRACE_DATABASE=database_url)
    assert code == 0, found
    assert found["database"]["state"] == "ok"
    assert "a newer release has applied pre/9999_future" in found["database"]["found"]


async def test_migrate_makes_the_embedded_database_and_stops_it(folder: Path) -> None:
    """After the command the embedded database exists and no process of it is left."""
    said = await headrace(folder, "migrate")
    assert said.code == 0, said.err
    assert "applied pre/0001_engine" in said.out
    assert (folder / ".headrace/postgres/cluster").exists()
    assert not (folder / ".headrace/postgres/cluster/postmaster.pid").exists()


async def test_commands_say_who_holds_the_embedded_database(start: Start, folder: Path) -> None:
    """A platform that runs holds the embedded database; a command says so instead of waiting."""
    service = await start({})
    settings = {"HEADRACE_DATA_DIR": str(folder / "data"), "HEADRACE_MANAGEMENT_PORT": str(service.management_port)}
    held = (
        f"headrace: a platform (pid {service.pid}) runs on HEADRACE_DATA_DIR={folder / 'data'} and holds its database; "
    )
    for arguments, advice in (
        (["migrate"], "it migrates at its own start.\n"),
        (["topics", "small:app"], "stop it first.\n"),
        (["dead-letters", "list"], "ask it instead: pass --url http://127.0.0.1:8000.\n"),
    ):
        said = await headrace(folder, *arguments, settings=settings)
        assert (said.code, said.err) == (1, held + advice)
    doctor = await headrace(folder, "doctor", "small:app", "--json", settings=settings)
    assert doctor.code == 0, doctor.out
    found = {check["name"]: check for check in json.loads(doctor.out)}
    assert found["database"]["state"] == "ok"
    assert f"(pid {service.pid})" in found["database"]["found"]
    assert found["management port"]["found"].endswith("is ready")
    assert found["log"]["state"] == "skip"


async def test_topics_creates_what_is_missing_and_shows_it(
    folder: Path, kafka: KafkaServer, database_url: str, topic_name: str
) -> None:
    settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url, "HEADRACE_PARTITIONS": "2"}
    without = await headrace(folder, "topics", "small:app", "--no-create", settings=settings)
    assert without.code == 1
    assert [topic_name, "-", "missing", "things", "-", "new"] in [line.split() for line in without.out.splitlines()]
    assert without.err == f"headrace: missing in the log: {topic_name}; create them, or run without --no-create.\n"
    first = await headrace(folder, "topics", "small:app", settings=settings)
    assert first.code == 0, first.err
    assert [topic_name, "2", "created", "things", "-", "new"] in [line.split() for line in first.out.splitlines()]
    second = await headrace(folder, "topics", "small:app", settings=settings)
    assert [topic_name, "2", "exists", "things", "-", "yes"] in [line.split() for line in second.out.splitlines()]
    wrong = await headrace(folder, "topics", "small:app", settings=settings | {"HEADRACE_PARTITIONS": "3"})
    assert wrong.code == 1
    assert "set HEADRACE_PARTITIONS=2, or unset it" in wrong.err


async def test_accept_asks_first_and_takes_the_topic_as_it_is(
    start: Start, folder: Path, kafka: KafkaServer, database_url: str, topic_name: str
) -> None:
    settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url}
    await kafka.create_topic(topic_name, partitions=1)
    service = await start(settings)
    await publish(service, "one")
    connection = await asyncpg.connect(database_url)
    await until(
        lambda: connection.fetchval("select count(*) = 1 from headrace.claim where next_offset = 1"), "it is applied"
    )
    await connection.close()
    assert await service.leave() == 0
    await kafka.delete_topic(topic_name)
    await kafka.create_topic(topic_name, partitions=2)
    refused = await headrace(folder, "topics", "small:app", settings=settings)
    assert refused.code == 1
    assert f"headrace topics --accept {topic_name}" in refused.err
    doubted = await headrace(folder, "topics", "--accept", topic_name, settings=settings, answer="n\n")
    assert doubted.code == 1
    assert "that are new, or do not continue, are applied from their beginning. Continue?" in doubted.err
    accepted = await headrace(folder, "topics", "--accept", topic_name, settings=settings, answer="y\n")
    assert accepted.code == 0, accepted.err
    assert f"small.things: {topic_name}/0 continues at offset 0" in accepted.out
    assert f"small.things: {topic_name}/1 is new, begins at offset 0 and knows" in accepted.out
    shown = await headrace(folder, "topics", "small:app", settings=settings)
    assert shown.code == 0, shown.err


async def doctor(folder: Path, *arguments: str, **settings: str) -> tuple[int, dict[str, dict[str, str]]]:
    ports = {"HEADRACE_MANAGEMENT_PORT": str(free_ports(1)[0])}
    said = await headrace(folder, "doctor", *arguments, "--json", settings=ports | settings)
    assert "Traceback" not in said.err, said.err
    return said.code, {check["name"]: check for check in json.loads(said.out)}


async def test_doctor_finds_a_fit_machine_fit(
    start: Start, folder: Path, kafka: KafkaServer, database_url: str, topic_name: str
) -> None:
    settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url, "HEADRACE_PARTITIONS": "2"}
    code, found = await doctor(folder, "small:app", **settings)
    assert code == 0, found
    assert found[f"topic {topic_name}"]["state"] == "warn"  # not created yet
    service = await start(settings)
    await publish(service, "one")
    code, found = await doctor(folder, "small:app", **settings)
    assert code == 0, found
    assert {name: check["state"] for name, check in found.items()} == dict.fromkeys(
        (
            "python",
            "settings",
            "application",
            "access",
            "management port",
            "database",
            "log",
            f"topic {topic_name}",
            "claims of things",
        ),
        "ok",
    )
    assert "2 of 2 partitions owned by 1 processes" in found["claims of things"]["found"]
    said = await headrace(folder, "doctor", "small:app", settings=settings | {"HEADRACE_MANAGEMENT_PORT": "0"})
    assert said.code == 0
    assert ["ok", "application", "small:", "subscriptions", "things;"] in [
        line.split()[:5] for line in said.out.splitlines()
    ]


async def test_doctor_fails_where_something_would_not_work(
    folder: Path, kafka: KafkaServer, database_url: str, topic_name: str
) -> None:
    (port,) = free_ports(1)
    code, found = await doctor(folder, HEADRACE_LGO="x", HEADRACE_ROLE="bad")
    assert code == 1
    assert found["settings"]["state"] == "FAIL"
    assert "HEADRACE_LGO" in found["settings"]["found"] and "HEADRACE_ROLE" in found["settings"]["found"]
    code, found = await doctor(
        folder,
        "smal:app",
        HEADRACE_LOG=f"kafka://127.0.0.1:{port}",
        HEADRACE_DATABASE=f"postgresql://shop:hunter2@127.0.0.1:{port}/shop",
        HEADRACE_API_KEYS_FILE="/nowhere/keys.json",
    )
    assert code == 1
    failed = {name for name, check in found.items() if check["state"] == "FAIL"}
    assert failed == {"application", "access", "database", "log"}
    assert "hunter2" not in str(found)
    await kafka.create_topic(topic_name, partitions=2)
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "insert into headrace.topic (topic, partitions, log_id) values ($1, 2, 'kafka:another')", topic_name
    )
    await connection.execute(
        "insert into headrace.claim (subscription, topic, partition, epoch, token, claimed_offset, next_offset) "
        "values ('small.things', $1, 0, 1, gen_random_uuid(), 7, 7)",
        topic_name,
    )
    await connection.close()
    code, found = await doctor(folder, "small:app", HEADRACE_LOG=kafka.url, HEADRACE_DATABASE=database_url)
    assert code == 1
    assert "was applied from kafka:another" in found[f"topic {topic_name}"]["found"]
    assert f"{topic_name}/0 stands at 7, the log holds 0 to 0" in found["claims of things"]["found"]


async def test_doctor_shows_each_wrong_setting_on_a_line(folder: Path) -> None:
    settings = {"HEADRACE_LGO": "x", "HEADRACE_PARTITION": "3"}
    said = await headrace(folder, "doctor", settings=settings)
    assert said.code == 1
    assert "\\n" not in said.out
    lines = [line.strip() for line in said.out.splitlines()]
    assert lines[-2:] == [
        "HEADRACE_LGO: no such setting; did you mean HEADRACE_LOG?",
        "HEADRACE_PARTITION: no such setting; did you mean HEADRACE_PARTITIONS?",
    ]


async def test_doctor_tells_a_pending_migration(folder: Path, kafka: KafkaServer, postgres: PostgresServer) -> None:
    async with postgres.database(migrated=False) as address:
        code, found = await doctor(folder, HEADRACE_LOG=kafka.url, HEADRACE_DATABASE=address)
    assert code == 1
    assert found["database"]["state"] == "FAIL"
    assert found["database"]["advice"] == "run headrace migrate"


async def test_doctor_needs_no_embedded_database(folder: Path) -> None:
    code, found = await doctor(folder, "small:app")
    assert code == 0, found
    assert found["database"]["found"] == "the first headrace run makes it in .headrace"
    assert not (folder / ".headrace").exists()
    assert (await headrace(folder, "migrate")).code == 0
    code, found = await doctor(folder, "small:app")
    assert code == 0, found
    assert found["database"]["found"].startswith("PostgreSQL 1")


async def test_doctor_names_a_port_that_is_taken(folder: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        code, found = await doctor(folder, HEADRACE_MANAGEMENT_PORT=str(holder.getsockname()[1]))
    assert code == 1
    assert found["management port"]["state"] == "FAIL"
