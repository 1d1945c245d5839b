"""A process that cannot go on, or cannot end, is ended with a code that says so; an embedded Postgres is restarted."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.kafka import KafkaServer
from tests.support.ports import free_ports
from tests.support.process import ROOT
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.web import http_client

BEYOND_REPAIR = 70

APP = """
import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path
from fastapi import FastAPI
from headrace import Event, Headrace, State
from headrace.telemetry import health
from pydantic import BaseModel

events = Headrace("small")
things = events.subscription("things")

class Thing(Event, type="thing.made", topic="{topic}", key="name"):
    name: str

class Seen(BaseModel):
    count: int = 0

@things.on(Thing)
async def take(event: Thing, seen: State[Seen]) -> None:
    seen.count += 1
    if event.name == "fail":
        events.runtime.health.fail("tank", "the tank is empty.")
    if event.name == "block":
        health.LOOP_SILENT_SECONDS = 1.0  # not before: a loaded machine may take so long for a start
        time.sleep(600)
    while event.name == "stubborn":
        Path("began").touch()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

@asynccontextmanager
async def lifespan(app):
    async with events.lifespan(app):
        yield
    while Path("hang").exists():
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

app = FastAPI(lifespan=lifespan)
app.include_router(events.router)
"""

Start = Callable[..., Awaitable[Service]]


@pytest.fixture
async def start(tmp_path: Path, topic_name: str) -> AsyncIterator[Start]:
    """Start the small service above; whatever becomes of it, it is gone at the end."""
    started: list[Service] = []
    (tmp_path / "small.py").write_text(APP.format(topic=topic_name))

    async def start_one(settings: Mapping[str, str], role: str = "all") -> Service:
        service = Service(tmp_path, {"HEADRACE_ENGINE_DRAIN_SECONDS": "1", **settings}, app="small:app", role=role)
        started.append(service)
        await service.start()
        return service

    yield start_one
    for service in started:
        await service.stop()


async def publish(url: str, name: str) -> httpx.Response:
    """Publish one event; it must be accepted."""
    answer = await try_to_publish(url, name)
    assert answer.status_code == 202, answer.text
    return answer


async def try_to_publish(url: str, name: str) -> httpx.Response:
    """Publish one event."""
    async with http_client() as client:
        return await client.post(f"{url}/events/thing.made", json={"name": name}, timeout=20)


async def count(service: Service, name: str) -> int:
    """Return how many events of the name were applied."""
    async with http_client() as client:
        answer = await client.get(f"{service.url}/state/things/seen/{name}", timeout=20)
    return int(answer.json()["count"]) if answer.status_code == 200 else 0


def entries(output: str, text: str) -> list[dict[str, object]]:
    """Return the entries of the log whose message holds the text."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line for line in lines if text in str(line["event"])]


async def test_process_beyond_repair_drains_and_exits_with_70(start: Start) -> None:
    service = await start({})
    await publish(service.url, "fail")
    assert await service.ended() == BEYOND_REPAIR, service.output
    (said,) = entries(service.output, "beyond repair")
    assert said["reason"] == "the tank is empty"
    (drained,) = entries(service.output, "drained")
    assert drained["outcome"] == "clean"
    assert "Traceback" not in service.output


async def test_worker_beyond_repair_exits_with_70(
    start: Start, kafka: KafkaServer, database_url: str, topic_name: str
) -> None:
    settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url}
    ingest = await start(settings, "ingest")
    worker = await start(settings, "worker")
    await publish(ingest.url, "fail")
    assert await worker.ended() == BEYOND_REPAIR, worker.output
    assert entries(worker.output, "drained")
    assert await ingest.leave() == 0


async def test_blocked_loop_does_not_keep_the_process(start: Start, tmp_path: Path) -> None:
    service = await start({})
    await publish(service.url, "block")
    assert await service.ended() == BEYOND_REPAIR, service.output
    (said,) = entries(service.output, "the event loop is blocked")
    assert said["exit_code"] == BEYOND_REPAIR
    assert not entries(service.output, "drained")


async def test_clean_up_that_hangs_does_not_keep_the_process(start: Start, tmp_path: Path) -> None:
    service = await start({})
    (tmp_path / "hang").touch()
    await publish(service.url, "fail")
    assert await service.ended() == BEYOND_REPAIR, service.output
    assert entries(service.output, "drained")
    assert entries(service.output, "did not end after its drain")


async def test_task_that_cannot_be_cancelled_ends_with_the_process(start: Start, tmp_path: Path) -> None:
    service = await start({})
    await publish(service.url, "stubborn")
    await until((tmp_path / "began").exists, "the handler has begun")
    os.kill(service.pid, signal.SIGTERM)
    assert await service.ended() == 1, service.output
    (said,) = entries(service.output, "tasks that cannot be cancelled end with the process")
    assert any(str(task).endswith(" in take") for task in said["tasks"]), said  # type: ignore[attr-defined]


@asynccontextmanager
async def uvicorn(folder: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process, Path]]:
    """Run the service under uvicorn itself; yield its address, its process and its output."""
    port, management = free_ports(2)
    output = folder / "uvicorn.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")} | {
        "PYTHONPATH": f"{ROOT / 'app'}",
        "HEADRACE_MANAGEMENT_PORT": str(management),
        "HEADRACE_ENGINE_DRAIN_SECONDS": "1",
    }
    command = ("-m", "uvicorn", "small:app", "--port", str(port), "--log-level", "warning")
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, env=environment, cwd=folder, stdout=log, stderr=log
        )
    try:
        url = f"http://127.0.0.1:{port}"

        async def is_ready() -> bool:
            try:
                async with http_client() as client:
                    return (await client.get(f"{url}/health/ready")).status_code == 200
            except httpx.HTTPError:
                return False

        await until(is_ready, "uvicorn serves", 60)
        yield url, process, output
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(("name", "said"), [("fail", "drained"), ("block", "the event loop is blocked")])
async def test_uvicorn_exits_with_70_as_well(tmp_path: Path, topic_name: str, name: str, said: str) -> None:
    (tmp_path / "small.py").write_text(APP.format(topic=topic_name))
    async with uvicorn(tmp_path) as (url, process, output):
        await publish(url, name)
        assert await asyncio.wait_for(process.wait(), 60) == BEYOND_REPAIR, output.read_text()
    assert entries(output.read_text(), said)


async def test_uvicorn_that_is_asked_to_stop_keeps_its_own_code(tmp_path: Path, topic_name: str) -> None:
    (tmp_path / "small.py").write_text(APP.format(topic=topic_name))
    async with uvicorn(tmp_path) as (_, process, output):
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGTERM, output.read_text()


def postmaster(folder: Path) -> int:
    """Return the process id of the embedded PostgreSQL."""
    return int((folder / "data/postgres/cluster/postmaster.pid").read_text().splitlines()[0])


async def test_embedded_postgres_that_died_is_restarted(start: Start, tmp_path: Path) -> None:
    service = await start({})
    await publish(service.url, "one")
    await until(lambda: count(service, "one"), "the first event is applied")
    before = postmaster(tmp_path)
    os.kill(before, signal.SIGKILL)

    refusals: list[httpx.Response] = []

    async def is_accepted_again() -> bool:
        answer = await try_to_publish(service.url, "two")
        if answer.status_code != 202:
            refusals.append(answer)
        return answer.status_code == 202

    async def says_why() -> bool:
        async with http_client() as client:
            answer = await client.get(f"{service.url}/health/ready")
        return answer.status_code == 503 and "database_restarting" in answer.json()["reasons"]

    await until(says_why, "readiness says why")
    await until(is_accepted_again, "events are accepted again")
    assert all(answer.status_code == 503 and "retry-after" in answer.headers for answer in refusals)
    await until(lambda: count(service, "two"), "the second event is applied")
    await until(service.is_ready, "the service is ready again")
    assert await count(service, "one") == 1
    assert postmaster(tmp_path) != before
    assert await service.leave() == 0
    assert entries(service.output, "the embedded PostgreSQL runs again")


async def test_embedded_postgres_that_stays_dead_ends_the_process(start: Start, tmp_path: Path) -> None:
    service = await start({})
    (tmp_path / "data/postgres/cluster/PG_VERSION").write_text("9.6\n")
    os.kill(postmaster(tmp_path), signal.SIGKILL)
    assert await service.ended(100) == BEYOND_REPAIR, service.output
    (said,) = entries(service.output, "beyond repair")
    assert re.search("The embedded PostgreSQL died 5 times in a row: .*incompatible with server", str(said["reason"]))
