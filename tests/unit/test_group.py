"""A group that is stopped, or cannot start a process, at an awkward moment; its processes are doubles."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.server import listen
from headrace.processes import group as module
from headrace.processes.child import Up
from headrace.processes.group import Group
from headrace.processes.pages import GroupPages
from headrace.supervisor import CUT_SHORT
from tests.support.waiting import until

DOUBLE = """#!{python}
import os, pathlib, signal, socket, sys

folder = pathlib.Path({folder!r})
given = [(name, int(value)) for name, _, value in (each.partition("=") for each in sys.argv) if value]

def drain(*_):
    [os.close(fd) for name, fd in given if name == "--listener"]
    (folder / "draining").touch()
    (folder / "drained").read_bytes()
    os._exit(0)

is_first = not list(folder.glob("begun-*"))
if is_first:
    signal.signal(signal.SIGTERM, drain)
(folder / f"begun-{{os.getpid()}}").touch()
if is_first:
    socket.socket(fileno=dict(given)["--parent"]).send(b'["double", 1]\\n')
while True:
    signal.pause()
"""
"""The first process is up at once, and drains until somebody writes to `drained`; all others are still starting."""


class Started:
    """A group under test."""

    def __init__(self, folder: Path, processes: int, listeners: Sequence[socket.socket]) -> None:
        self._folder = folder
        self.pages = GroupPages(processes)
        self.group = Group(["run"], processes, listeners, self.pages)
        self.up: asyncio.Future[Up] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self.group.run(self.up.set_result))

    def begun(self) -> int:
        return len(list(self._folder.glob("begun-*")))

    def is_draining(self) -> bool:
        return (self._folder / "draining").exists()

    async def drained(self) -> int:
        """Let the first process end; return the exit code of the group."""
        await asyncio.to_thread((self._folder / "drained").write_bytes, b"")
        async with asyncio.timeout(30):
            return await self.task


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    double = tmp_path / "double"
    double.write_text(DOUBLE.format(python=sys.executable, folder=str(tmp_path)))
    double.chmod(0o700)
    os.mkfifo(tmp_path / "drained")
    monkeypatch.setattr(sys, "executable", str(double))
    monkeypatch.setattr(module, "SHORTEST_PAUSE", 0.0)
    made: list[Started] = []

    def start(processes: int, listeners: Sequence[socket.socket] = ()) -> Started:
        made.append(Started(tmp_path, processes, listeners))
        return made[-1]

    yield start
    for each in made:
        for _ in range(0 if each.task.done() else 2):
            each.group.stop()
        await asyncio.wait({each.task})
        each.pages.close()


async def test_stop_while_another_process_starts_is_clean(make: Any) -> None:
    started = make(2)
    await until(lambda: started.begun() == 2, "one is up, the other one starts")
    started.group.stop()
    assert await started.drained() == 0


async def test_nobody_connects_while_the_processes_drain(make: Any) -> None:
    (listener,) = listen("127.0.0.1", 0)
    address = listener.getsockname()
    with closing(listener):
        started = make(1, [listener])
        await started.up
        started.group.stop()
        await until(started.is_draining, "it drains")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        assert await started.drained() == 0


async def test_process_that_cannot_be_started_is_tried_again(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start = asyncio.create_subprocess_exec
    refused: list[OSError] = []

    async def starved(*given: Any, **options: Any) -> asyncio.subprocess.Process:
        if started.begun() == 1 and not refused:
            refused.append(OSError(errno.ENOMEM, "Cannot allocate memory"))
            raise refused[0]
        return await start(*given, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", starved)
    started = make(2)
    await until(lambda: started.begun() == 2 or started.task.done(), "the second one is there")
    assert refused
    assert not started.task.done()
    started.group.stop()
    assert await started.drained() == 0


async def test_stop_while_the_first_process_ends_at_once_is_told(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start = asyncio.create_subprocess_exec

    async def ending(*given: Any, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*given, **options)
        process.kill()
        await until(lambda: process._transport._proc is None, "it is known to have ended")  # type: ignore[attr-defined]
        started.group.stop()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", ending)
    started = make(1)
    async with asyncio.timeout(30):
        assert await started.task == CUT_SHORT
