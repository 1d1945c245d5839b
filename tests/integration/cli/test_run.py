"""`headrace run`: signals, ports, roles, and what a user gets wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from headrace.version import VERSION
from tests.support.command import headrace
from tests.support.kafka import KafkaServer
from tests.support.service import Service
from tests.support.small_app import publish
from tests.support.waiting import until
from tests.support.web import http_client

Start = Callable[..., Awaitable[Service]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_first_signal_drains_and_exits_with_0(start: Start, folder: Path, number: signal.Signals) -> None:
    service = await start({})
    await publish(service, "one")
    os.kill(service.pid, number)
    assert await service.ended() == 0, service.output
    assert '"event": "drained", "outcome": "clean"' in service.output
    assert "Traceback" not in service.output


async def test_second_signal_cuts_the_drain_short(start: Start, folder: Path) -> None:
    service = await start({})
    await publish(service, "endless")
    await until((folder / "began").exists, "the handler has begun")
    os.kill(service.pid, signal.SIGTERM)

    async def is_draining() -> bool:
        async with http_client() as client:
            answer = await client.get(f"http://127.0.0.1:{service.management_port}/health/ready")
        return answer.status_code == 503 and "draining" in answer.json()["reasons"]

    await until(is_draining, "readiness is off")
    os.kill(service.pid, signal.SIGTERM)
    assert await service.ended(10) == 1
    assert "cut short by a second signal" in service.output
    assert "drained" not in service.output


DEAF = """
    if event.name == "endless":
        Path("began").touch()
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
"""


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_handler_that_hangs_does_not_outlast_the_drain(start: Start, folder: Path, kind: str) -> None:
    """A thread that never returns, or a coroutine that swallows every cancellation: one line names it."""
    if kind == "async":
        source = (folder / "small.py").read_text().replace("def take", "async def take")
        begin, end = source.index("    if event.name == "), source.index('    if event.name == "picky"')
        source = source[:begin] + DEAF.lstrip("\n") + source[end:]
        (folder / "small.py").write_text("import asyncio\nfrom contextlib import suppress\n" + source)
    service = await start({"HEADRACE_ENGINE_DRAIN_SECONDS": "1"})
    await publish(service, "endless")
    await until((folder / "began").exists, "the handler has begun")
    os.kill(service.pid, signal.SIGTERM)
    assert await service.ended(1 + 15) == 1, service.output
    assert '"event": "drained"' in service.output
    (line,) = [json.loads(line) for line in service.output.splitlines() if "end with the process" in line]
    if kind == "sync":
        assert line["threads"] == ["headrace-handlers-things_0"]
    else:
        assert line["tasks"] == ["handlers in take"]
    assert "Traceback" not in service.output


async def test_worker_serves_only_the_management_port(
    start: Start, folder: Path, kafka: KafkaServer, database_url: str
) -> None:
    service = await start({"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url}, role="worker")
    async with http_client() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{service.url}/health/ready")
        answer = await client.get(f"http://127.0.0.1:{service.management_port}/metrics")
        assert answer.status_code == 200
    assert await service.leave() == 0, service.output
    assert "Traceback" not in service.output


async def test_run_says_on_a_terminal_where_everything_is(start: Start, folder: Path) -> None:
    """Also at a user's first start: by an interpreter of its own, in a folder without a database."""
    service = await start({"HEADRACE_LOG_FORMAT": "console"}, is_quick=False)
    await until(lambda: f"probes   http://127.0.0.1:{service.management_port}" in service.output, "told")
    for line in (
        f"small serves on {service.url} (log: embedded)",
        f"  docs     {service.url}/docs",
        f"  events   {service.url}/asyncapi.json",
        f"  health   {service.url}/health/ready",
    ):
        assert line in service.output


@pytest.mark.parametrize("taken", ["--port", "HEADRACE_MANAGEMENT_PORT"])
async def test_port_that_is_taken_is_one_sentence(folder: Path, taken: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        ports = {"--port": "0", "HEADRACE_MANAGEMENT_PORT": "0"} | {taken: port}
        said = await headrace(
            folder,
            *("run", "small:app", "--port", ports["--port"]),
            settings={"HEADRACE_MANAGEMENT_PORT": ports["HEADRACE_MANAGEMENT_PORT"]},
            is_fork=False,
        )
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith(f"headrace: {taken}{' ' if taken == '--port' else '='}{port} is taken")
    assert said.err.count("taken") == 1
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        (
            ["run", "small:app", "--role", "bad"],
            {},
            "a setting is wrong: HEADRACE_ROLE='bad': Input should be 'all', 'ingest' or 'worker'",
        ),
        (
            ["run", "small:app", "--role", "worker"],
            {},
            "a setting is wrong: HEADRACE_ROLE=worker needs a log that processes share: HEADRACE_LOG=kafka://...",
        ),
        (["run", "small"], {}, "'small' does not name an application; write MODULE:APP, such as shop.service:app."),
        (
            ["run", "smal:app"],
            {},
            "there is no module 'smal' to import 'smal:app' from; run in its folder, or set PYTHONPATH.",
        ),
        (["run", "small:ap"], {}, "'small:ap': ap does not exist in small."),
        (
            ["run", "small:app", "--host", "0.0.0.0"],  # noqa: S104 - refused
            {},
            "serving on 0.0.0.0 without API keys would let anybody publish and operate; name a file of keys in "
            "HEADRACE_API_KEYS_FILE, serve on 127.0.0.1, or set HEADRACE_INGEST_ALLOW_UNAUTHENTICATED=true.",
        ),
        (
            ["run", "small:app", "--host", "203.0.113.7"],
            {"HEADRACE_INGEST_ALLOW_UNAUTHENTICATED": "true"},
            "--host 203.0.113.7 cannot be served on: Cannot assign requested address; name an address of this machine.",
        ),
        (
            ["dead-letters", "list"],
            {},
            "there is no database in HEADRACE_DATA_DIR=.headrace yet; the first headrace run makes it.",
        ),
        (
            ["dead-letters", "list", "--url", "127.0.0.1:8000"],
            {},
            "'127.0.0.1:8000' is not the address of a deployment, such as http://127.0.0.1:8000.",
        ),
        (
            ["migrate"],
            {"HEADRACE_LOG": "memory"},
            "HEADRACE_LOG=memory with HEADRACE_DATABASE=embedded keeps nothing that another process could see.",
        ),
    ],
)
async def test_mistake_is_one_sentence(
    folder: Path, arguments: list[str], settings: dict[str, str], sentence: str
) -> None:
    said = await headrace(folder, *arguments, settings={"HEADRACE_MANAGEMENT_PORT": "0"} | settings)
    assert (said.code, said.out, said.err) == (1, "", f"headrace: {sentence}\n")


async def test_errors_of_the_teams_own_module_keep_their_traceback(folder: Path) -> None:
    (folder / "broken.py").write_text("import nothing_of_the_kind\n")
    said = await headrace(folder, "run", "broken:app")
    assert said.code == 1
    assert "Traceback" in said.err
    assert said.err.splitlines()[-1] == "ModuleNotFoundError: No module named 'nothing_of_the_kind'"


async def test_wrong_signature_is_one_sentence(folder: Path) -> None:
    source = (folder / "small.py").read_text().replace("seen: State[Seen]", "seen: Seen")
    (folder / "small.py").write_text(source)
    said = await headrace(folder, "run", "small:app")
    assert said.code == 1
    assert said.err.startswith("headrace: take: parameter 'seen': Seen cannot be injected; a handler takes ")
    assert said.err.endswith("For a value kept per key write State[Seen].\n")
    assert said.err.count("\n") == 1


async def test_team_that_fails_to_start_keeps_its_traceback(folder: Path) -> None:
    (folder / "late.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from fastapi import FastAPI\n"
        "from small import events\n"
        "@asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    async with events.lifespan(app):\n"
        "        raise RuntimeError('no more ink')\n"
        "        yield\n"
        "app = FastAPI(lifespan=lifespan)\n"
    )
    said = await headrace(folder, "run", "late:app", "--port", "0", settings={"HEADRACE_MANAGEMENT_PORT": "0"})
    assert said.code == 1
    assert "RuntimeError: no more ink" in said.err


@pytest.mark.parametrize("role", ["all", "worker"])
async def test_lifespan_that_does_not_enter_the_platform_is_told(folder: Path, role: str) -> None:
    """The application's lifespan names the platform and does not enter it."""
    (folder / "forgetful.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from fastapi import FastAPI\n"
        "from small import events\n"
        "@asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    print(events)\n"
        "    yield\n"
        "app = FastAPI(lifespan=lifespan)\n"
    )
    settings = {"HEADRACE_LOG": "kafka://127.0.0.1:9"}
    said = await headrace(folder, "run", "forgetful:app", "--port", "0", "--role", role, settings=settings)
    assert (said.code, said.err) == (
        1,
        "headrace: the application has started without its Headrace; "
        "enter events.lifespan(app) in your own lifespan.\n",
    )


async def test_help_names_every_verb(folder: Path) -> None:
    said = await headrace(folder, "--help")
    assert said.code == 0
    for verb in ("run", "migrate", "topics", "doctor", "dead-letters", "database"):
        assert verb in said.out


async def test_version_is_told(folder: Path) -> None:
    said = await headrace(folder, "--version", is_fork=False)
    assert (said.code, said.out) == (0, f"headrace {VERSION}\n")
