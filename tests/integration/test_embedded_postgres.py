"""The embedded PostgreSQL keeps what it committed and leaves nothing behind, whoever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from headrace.database import launch, server_process
from headrace.database.embedded import EmbeddedPostgres
from headrace.errors import ConfigurationError
from tests.support.waiting import until

_WRITER = Path(__file__).parents[1] / "support" / "embedded_writer.py"


@contextmanager
def _writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        # -P: tests/support is not for import by its modules' bare names, which are the standard library's, too
        [sys.executable, "-P", str(_WRITER), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _is_running(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # a zombie has none
    except FileNotFoundError:
        return False


async def _numbers(url: str) -> list[int]:
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch("select number from written order by 1")]
    finally:
        await connection.close()


async def _answers(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("select 1"))
    finally:
        await connection.close()


async def test_what_was_committed_survives_kill_9(tmp_path: Path) -> None:
    """Platform and server are killed at once."""
    acknowledged = 0
    for _ in range(3):
        with _writer(tmp_path) as process:
            _, postmaster, _ = _read(process).split()
            for _ in range(50):
                acknowledged = int(_read(process))
            os.kill(process.pid, signal.SIGKILL)
            os.kill(int(postmaster), signal.SIGKILL)
        server = EmbeddedPostgres(tmp_path)
        try:
            numbers = await _numbers(await server.start())
        finally:
            await server.stop()
        assert numbers[:acknowledged] == list(range(1, acknowledged + 1))


async def test_the_server_dies_with_a_platform_that_is_killed(tmp_path: Path) -> None:
    with _writer(tmp_path) as process:
        postmaster = int(_read(process).split()[1])
        process.kill()
        await until(lambda: not _is_running(postmaster), "the server is gone")


@pytest.mark.parametrize("stopped", ["postmaster", "backend"])
async def test_a_leftover_of_a_killed_platform_is_ended_first(tmp_path: Path, stopped: str) -> None:
    with _writer(tmp_path) as process:
        _, postmaster, backend = _read(process).split()
        leftover = int(postmaster if stopped == "postmaster" else backend)
        os.kill(leftover, signal.SIGSTOP)  # so that it cannot see the platform die
        process.kill()
        process.wait()
        if stopped == "backend":
            os.kill(int(postmaster), signal.SIGKILL)
            await until(lambda: not _is_running(int(postmaster)), "the postmaster is gone")
        assert _is_running(leftover)
        server = EmbeddedPostgres(tmp_path)
        try:
            assert await _answers(await server.start()) == 1
            assert not _is_running(leftover)
        finally:
            await server.stop()


async def test_another_program_with_the_servers_old_pid_is_left_alone(tmp_path: Path) -> None:
    """A server died, and its process id was given to another program."""
    server = EmbeddedPostgres(tmp_path)
    await server.start()
    pid_file = tmp_path / "cluster" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    await server.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    try:
        assert await _answers(await server.start()) == 1
    finally:
        await server.stop()


async def test_a_second_platform_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    """The error names the process id of the first one."""
    first = EmbeddedPostgres(tmp_path)
    url = await first.start()
    try:
        with pytest.raises(ConfigurationError, match=f"HEADRACE_DATA_DIR.*pid {os.getpid()}"):
            await EmbeddedPostgres(tmp_path).start()
        assert await _answers(url) == 1
    finally:
        await first.stop()


async def test_kill_9_while_the_cluster_is_made_leaves_nothing(tmp_path: Path) -> None:
    """Nothing is left half done."""
    with _writer(tmp_path) as process:
        await until(lambda: list(tmp_path.glob("cluster.new-*/PG_VERSION")), "initdb has begun")
        process.kill()
    server = EmbeddedPostgres(tmp_path)
    try:
        assert await _answers(await server.start()) == 1
        assert not list(tmp_path.glob("cluster.new-*"))
    finally:
        await server.stop()


async def test_settings_of_ones_own_take_the_place_of_the_defaults(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path, is_durable=False, settings={"shared_buffers": "64MB"})
    try:
        connection = await asyncpg.connect(await server.start())
        assert await connection.fetchval("select current_setting('shared_buffers')") == "64MB"
        await connection.close()
    finally:
        await server.stop()


async def test_a_new_cluster_is_on_disk_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither initdb nor the server flushes it then: every file and every folder of it was flushed by us."""
    fsync, rename, flushed, missed = os.fsync, Path.rename, set[int](), set[str]()

    def note_flush(file: int) -> None:
        flushed.add(os.fstat(file).st_ino)
        fsync(file)

    def note_rename(folder: Path, name: Path) -> Path:
        paths = [folder, *folder.rglob("*")]
        missed.update(str(path) for path in paths if path.stat().st_ino not in flushed)
        assert len(paths) > 900
        return rename(folder, name)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(Path, "rename", note_rename)
    server = EmbeddedPostgres(tmp_path)
    try:
        assert await _answers(await server.start()) == 1
    finally:
        await server.stop()
    assert flushed
    assert not missed


@pytest.mark.parametrize("name", ["deep" * 50, "a, b: ü'@"])
async def test_a_folder_with_a_long_or_odd_name_works(tmp_path: Path, name: str) -> None:
    """The folder for its socket is removed at the stop."""
    server = EmbeddedPostgres(tmp_path / name)
    before = set(Path(tempfile.gettempdir()).glob("headrace-socket-*"))
    try:
        assert await _answers(await server.start()) == 1
        assert len(set(Path(tempfile.gettempdir()).glob("headrace-socket-*")) - before) >= 1
    finally:
        await server.stop()
    assert not (tmp_path / name / "cluster" / "postmaster.pid").exists()


async def test_a_server_that_exits_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    await server.start()
    await server.stop()
    (tmp_path / "cluster" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(ConfigurationError, match=r"HEADRACE_DATA_DIR=.*exited: .*incompatible with server"):
        await server.start()
    (tmp_path / "cluster" / "PG_VERSION").write_text("18\n")
    assert await _answers(await server.start()) == 1  # the lock was released
    await server.stop()


async def test_a_data_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="HEADRACE_DATA_DIR"):
        await EmbeddedPostgres(tmp_path / "file" / "data").start()


async def test_stop_may_be_called_before_start_and_twice(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()
    assert server.pid is None


async def test_the_server_listens_on_no_port(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    connection = await asyncpg.connect(await server.start())
    try:
        assert await connection.fetchval("show listen_addresses") == ""
        assert await connection.fetchval("show fsync") == "on"
    finally:
        await connection.close()
        await server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="root only: others run the server as themselves")
async def test_root_runs_it_without_changing_a_permission_on_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "private" / "data"
    folder.parent.mkdir(mode=0o700)
    before = [path.stat()[:6] for path in (folder.parent, *tmp_path.parents)]
    server = EmbeddedPostgres(folder)
    try:
        assert await _answers(await server.start()) == 1
    finally:
        await server.stop()
    after = [path.stat()[:6] for path in (folder.parent, *tmp_path.parents)]
    assert [status[:2] + status[4:6] for status in before] == [status[:2] + status[4:6] for status in after]


@pytest.mark.skipif(os.geteuid() != 0, reason="root only: others run the server as themselves")
async def test_root_without_namespaces_runs_it_as_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the user nobody may not enter the folder, the error says which folder is closed."""
    monkeypatch.setattr(server_process, "_may_enter_namespace", lambda binaries: False)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match=r"nobody.*cannot enter .*chmod o\+x"):
        await EmbeddedPostgres(closed / "data").start()
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder)
    try:
        assert await _answers(await server.start()) == 1
        assert (folder / "cluster").stat().st_uid == launch.NOBODY
        await server.stop()
        monkeypatch.undo()
        assert await _answers(await server.start()) == 1  # namespaces are allowed again: root takes the files back
    finally:
        await server.stop()
        shutil.rmtree(folder)
