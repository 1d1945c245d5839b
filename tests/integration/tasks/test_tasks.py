"""Work that a route leaves to the service: it is done behind the answer, in order per key, and whatever dies."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from headrace import Headrace, Outbox, Tasks
from headrace.log.memory import MemoryLog
from tests.support.platform import running, settings_for
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.web import http_client

APP = """
import asyncio
from pathlib import Path
from fastapi import FastAPI
from headrace import Headrace, Tasks

events = Headrace("club")
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)

@events.task()
async def greet(name: str) -> None:
    Path("begun").touch()
    while not Path("may-end").exists():
        await asyncio.sleep(0.01)
    with Path("greeted").open("a") as file:
        file.write(f"{name}\\n")

@app.post("/members/{name}", status_code=202)
async def sign_up(name: str, tasks: Tasks) -> dict[str, str]:
    return {"task": (await tasks.add_task(greet, name)).id}
"""


@pytest.mark.timeout(120)
async def test_a_task_survives_the_death_of_its_process(tmp_path: Path, postgres: PostgresServer) -> None:
    """It was added, its call had begun, and the process is killed: the next one makes the call."""
    (tmp_path / "club.py").write_text(APP)
    async with postgres.database() as url:
        settings = {"HEADRACE_LOG": "embedded", "HEADRACE_DATABASE": url, "HEADRACE_ENGINE_RETRY_FIRST_SECONDS": "0.1"}
        service = Service(tmp_path, settings, app="club:app")
        try:
            await service.start()
            async with http_client(base_url=service.url) as client:
                answer = await client.post("/members/ada")
            assert answer.status_code == 202, answer.text
            await until((tmp_path / "begun").exists, "the call has begun")
            await service.kill()
            assert not (tmp_path / "greeted").exists()
            (tmp_path / "may-end").touch()
            await service.start()
            await until((tmp_path / "greeted").exists, "the call was made again")
            assert (tmp_path / "greeted").read_text() == "ada\n"
        finally:
            await service.stop()


async def test_a_route_adds_tasks_alone_and_with_its_own_sql(database_url: str) -> None:
    """What the route's transaction takes back is not called."""
    platform, called = Headrace("club", settings_for(database_url, partitions=1)), list[str]()
    app = FastAPI()

    @platform.task()
    async def greet(name: str) -> None:
        called.append(name)

    @app.post("/alone/{name}")
    async def alone(name: str, tasks: Tasks) -> None:
        await tasks.add_task(greet, name=name)

    @app.post("/together/{name}")
    async def together(name: str, tx: Outbox) -> None:
        tx.emit(greet.event(name))
        if name == "eve":
            raise RuntimeError("not she")

    async with running(platform, MemoryLog()):
        app.state.headrace = platform
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://club") as client:
            assert (await client.post("/together/eve")).status_code == 500
            assert (await client.post("/alone/ada")).status_code == 200
            assert (await client.post("/together/bob")).status_code == 200
        await until(lambda: sorted(called) == ["ada", "bob"], "both were called")


async def test_tasks_of_one_key_run_one_after_the_other(database_url: str) -> None:
    """Those of another key do not wait for them."""
    platform, calls, gate = Headrace("club", settings_for(database_url, partitions=1)), list[str](), asyncio.Event()

    @platform.task(key="to")
    async def send(to: str, number: int) -> None:
        calls.append(f"{to} {number} begins")
        if to == "ada":
            await gate.wait()
        calls.append(f"{to} {number} ends")

    async with running(platform, MemoryLog()):
        await platform.publish([send.event("ada", 1), send.event("ada", 2), send.event("bob", 1)])
        await until(lambda: "bob 1 ends" in calls, "another key goes on")
        assert "ada 2 begins" not in calls
        gate.set()
        await until(lambda: "ada 2 ends" in calls, "the second follows")
    ada = [call for call in calls if call.startswith("ada")]
    assert ada == ["ada 1 begins", "ada 1 ends", "ada 2 begins", "ada 2 ends"]


async def test_synchronous_tasks_of_a_key_never_run_at_once(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The time of the first attempt is up, and nothing ends its thread."""
    events = Headrace("club", settings_for(database_url, partitions=1))
    is_free, inside, calls = threading.Event(), threading.Lock(), list[int]()

    @events.task(key="to", timeout_seconds=0.2, attempts=1_000)
    def send(to: str, number: int) -> None:
        assert inside.acquire(blocking=False), "two at once"
        assert is_free.wait(60)
        inside.release()
        calls.append(number)

    async with running(events, MemoryLog()):
        await events.publish([send.event("ada", 1), send.event("ada", 2)])
        await until(lambda: "an earlier call for its key still runs" in caplog.text, "the next attempt waits")
        assert inside.locked()
        is_free.set()
        await until(lambda: calls[-1:] == [2], "both have been sent")
    assert calls == sorted(calls)
