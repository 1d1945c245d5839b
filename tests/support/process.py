"""`headrace ARGUMENT...` as a process of its own, without the second that each would spend on importing the platform.

    process = await start_headrace(["run", "shop.service:app"], environment, folder, out=log)
    process.pid; process.returncode; process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0

It is forked by a process that has imported the platform (launcher.py), one for each process of pytest. That an
interpreter's own start does the same is shown by tests that ask for it: `is_fork=False`.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Protocol

from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
LAUNCHER = Path(__file__).with_name("launcher.py")
BYTES = 12  # of a number that the launcher tells
END_SECONDS = 300.0


class Process(Protocol):
    """What tests do with a process: `asyncio.subprocess.Process`, or a fork."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def send_signal(self, signal: int) -> None: ...

    async def wait(self) -> int: ...


async def start_headrace(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    out: IO[bytes],
    err: IO[bytes] | None = None,
    typed: IO[bytes] | None = None,
    *,
    is_fork: bool = True,
    wrapper: Sequence[str] = (),
) -> Process:
    """Start `headrace ARGUMENT...` in the folder, with nothing but this environment. A `wrapper` runs Python."""
    err = err or out
    if is_fork:
        return Fork(await asyncio.to_thread(_fork, arguments, environment, folder, typed, out, err))
    command = [*wrapper, sys.executable, "-m", "headrace", *arguments]
    return await asyncio.create_subprocess_exec(
        *command, env=environment, cwd=folder, stdin=typed or subprocess.DEVNULL, stdout=out, stderr=err
    )


class Fork:
    """A process that the launcher has forked. Ended by a signal, its exit code is the signal's negative number."""

    def __init__(self, told: int) -> None:
        self.pid = _number(told)
        self._told = told
        self._returncode: int | None = None
        os.set_blocking(told, False)

    @property
    def returncode(self) -> int | None:
        """The exit code, once it has ended."""
        if self._returncode is None:
            try:
                self._returncode = _number(self._told)
            except BlockingIOError:
                return None
            os.close(self._told)
        return self._returncode

    def send_signal(self, signal: int) -> None:
        """Send the signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, signal)

    async def wait(self) -> int:
        """Return its exit code once it has ended."""
        await until(lambda: self.returncode is not None, f"process {self.pid} has ended", END_SECONDS)
        assert self._returncode is not None
        return self._returncode


def _fork(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    typed: IO[bytes] | None,
    *written: IO[bytes],
) -> int:
    """Ask the launcher for a process, and return the pipe that tells of it."""
    request = {"arguments": list(arguments), "environment": dict(environment), "folder": str(folder)}
    told, telling = os.pipe()
    with tempfile.TemporaryFile() as asked, open(os.devnull, "rb") as nothing:
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        streams = [nothing if typed is None else typed, *written]
        files = [asked.fileno(), *(stream.fileno() for stream in streams), telling]
        socket.send_fds(_launcher(), [b"\n"], files)
    os.close(telling)
    return told


@cache
def _launcher() -> socket.socket:
    """Return the socket of this process's launcher, which ends with it."""
    ours, theirs = socket.socketpair()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    launcher = subprocess.Popen(
        [sys.executable, "-P", str(LAUNCHER)],
        env=environment | {"PYTHONPATH": str(ROOT / "app")},
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        launcher.wait()

    atexit.register(end)
    return ours


def _number(told: int) -> int:
    """Return the next number. Raises: BlockingIOError (there is none yet), RuntimeError (there will be none)."""
    number = os.read(told, BYTES)
    if not number:
        raise RuntimeError("the launcher of the tests' processes has ended; what it said stands above.")
    return int(number)
