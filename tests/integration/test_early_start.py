"""The database of a first start begins before the application is imported, and goes if the start comes to nothing."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from headrace.database import early
from headrace.database.embedded import EmbeddedPostgres
from headrace.errors import ConfigurationError
from headrace.settings import load_settings
from tests.support.command import headrace
from tests.support.ports import free_ports
from tests.support.process import ROOT, Process, start_headrace
from tests.support.waiting import until

ELSEWHERE = """
from pathlib import Path
from fastapi import FastAPI
from headrace import Headrace
from headrace.settings import load_settings

events = Headrace("small", load_settings({"data_dir": Path("elsewhere")}))
app = FastAPI(lifespan=events.lifespan)
"""


def _at_work(folder: Path) -> set[int]:
    """The processes that work in a folder below this one."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd").startswith(f"{folder}/"):
                found.add(int(entry.name))
        except OSError:  # it has ended
            continue
    return found


def _freeze_a_server(folder: Path) -> bool:
    """Stop a server that initdb has started; False if there is none at the moment."""
    for pid in _at_work(folder):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "postgres\n":
                os.kill(pid, signal.SIGSTOP)
                return True
    return False


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def _initdb_writes(folder: Path) -> None:
    await until(lambda: list(folder.glob("cluster.new-*/PG_VERSION")), "initdb writes")


async def _starts(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    try:
        connection = await asyncpg.connect(await server.start())
        await connection.close()
        assert not list(folder.glob("cluster.new-*"))
    finally:
        await server.stop()


async def test_the_start_goes_on_with_what_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path))
    early.begin_early(["run", "small:app"])
    await _initdb_writes(tmp_path / "postgres")
    (made,) = [path.stat().st_ino for path in (tmp_path / "postgres").glob("cluster.new-*")]
    early.keep_early_for(load_settings())
    server = early.take(tmp_path / "postgres")
    try:
        connection = await asyncpg.connect(await server.start())
        await connection.close()
        assert (tmp_path / "postgres/cluster").stat().st_ino == made
    finally:
        await server.stop()


async def test_what_is_taken_back_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.begin()
    await until(lambda: _freeze_a_server(tmp_path), "what initdb has started cannot see it die")
    server.take_back()
    await until(lambda: not _at_work(tmp_path), "no process is left")
    assert _names(tmp_path) == ["lock"]
    await _starts(tmp_path)


async def test_an_initdb_that_fails_is_told_by_the_start(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.begin()
    await _initdb_writes(tmp_path)
    for pid in _at_work(tmp_path):
        with suppress(ProcessLookupError):  # some of them end by themselves at any moment
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(ConfigurationError, match=rf"no database could be made in HEADRACE_DATA_DIR={tmp_path}: initdb"):
        await server.start()
    assert _names(tmp_path) == ["lock"]
    await _starts(tmp_path)


@pytest.mark.parametrize("name", ["cluster.new-killed", "cluster", "postgres.log"])
async def test_nothing_begins_where_something_is_left(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    EmbeddedPostgres(tmp_path).begin()
    assert _names(tmp_path) == [name]
    assert not _at_work(tmp_path)


@pytest.mark.parametrize(
    "arguments", [["run", "--help"], ["migrate"], ["--version"], []], ids=["help", "migrate", "version", "nothing"]
)
def test_nothing_begins_for_another_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path))
    early.begin_early(arguments)
    assert _names(tmp_path) == []


@pytest.mark.parametrize(
    "setting",
    [("LOG", "memory"), ("DATABASE", "postgresql://localhost/x"), ("LOG", "wrong"), ("DATA_DIR", "file/data")],
    ids=["memory", "a server", "a wrong setting", "a folder that cannot be"],
)
def test_nothing_begins_without_an_embedded_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: tuple[str, str]
) -> None:
    """And nothing is said: the start itself says what is wrong."""
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"HEADRACE_{setting[0]}", setting[1])
    early.begin_early(["run", "small:app"])
    assert _names(tmp_path) == ["file"]


async def test_a_start_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    """No such application, and a port that is taken."""
    (tmp_path / "small.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, reason in (
            (["nothing:app"], "there is no module 'nothing'"),
            (["shop.service:app", "--port", port], f"--port {port} is taken by another process"),
        ):
            said = await headrace(tmp_path, "run", *arguments)
            assert said.code == 1
            assert said.err.startswith("headrace: ") and said.err.count("\n") == 1, said.err
            assert reason in said.err
            await until(lambda: not _at_work(tmp_path), "no process is left")
            assert _names(tmp_path / ".headrace/postgres") == ["lock"]
    await _starts(tmp_path / ".headrace/postgres")


@asynccontextmanager
async def _run(folder: Path, app: str) -> AsyncIterator[Process]:
    """Yield the process; it has ended afterwards."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment |= {"PYTHONPATH": f"{ROOT / 'app'}", "HEADRACE_MANAGEMENT_PORT": str(free_ports(1)[0])}
    with (folder / "output").open("wb") as output:
        process = await start_headrace(["run", app, "--port", "0"], environment, folder, output)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


@pytest.mark.parametrize("app", ["endless:app", "shop.service:app"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_while_the_database_is_made_leaves_no_process(
    tmp_path: Path, number: signal.Signals, app: str
) -> None:
    """And nothing that the next start could not work with, while the application is imported and afterwards."""
    (tmp_path / "endless.py").write_text("import signal\nsignal.pause()\n")
    async with _run(tmp_path, app) as process:
        await _initdb_writes(tmp_path / ".headrace/postgres")
        process.send_signal(number)
        await process.wait()
    await until(lambda: not _at_work(tmp_path), "no process is left")
    if number is signal.SIGINT:
        assert not list(tmp_path.glob(".headrace/postgres/cluster.new-*"))
    await _starts(tmp_path / ".headrace/postgres")


async def test_an_application_with_another_folder_gets_that_one(tmp_path: Path) -> None:
    """What has begun in the folder of the environment is taken back before the application starts."""
    (tmp_path / "small.py").write_text(ELSEWHERE)
    async with _run(tmp_path, "small:app") as process:
        await until((tmp_path / "elsewhere/postgres/cluster").exists, "the other database is made")
        assert _names(tmp_path / ".headrace/postgres") == ["lock"]
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0, (tmp_path / "output").read_text()
