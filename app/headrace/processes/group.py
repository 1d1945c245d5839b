"""Starts the processes of a group, replaces one that ends by itself, and stops all of them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from headrace.backoff import Backoff
from headrace.errors import ConfigurationError
from headrace.processes.child import Up, read_up
from headrace.processes.pages import GroupPages
from headrace.supervisor import CUT_SHORT
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace")

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY_SECONDS = 60.0
"""A process that lived so long was not ended by what ends every process: the next one starts at once."""


class Group:
    """The processes of one application.

    `command` is that of one process, without its interpreter; what it needs to know of its parent is added. Once it is
    stopped, the group closes the `listeners`: who connects while the processes drain is refused, and does not wait.
    """

    def __init__(
        self, command: Sequence[str], processes: int, listeners: Sequence[socket.socket], pages: GroupPages
    ) -> None:
        self._command = (sys.executable, "-m", "headrace", *command)
        self._count = processes
        self._listeners = listeners
        self._pages = pages
        self._stopping = asyncio.Event()
        self._running: set[asyncio.subprocess.Process] = set()

    async def run(self, announce: Callable[[Up], None]) -> int:
        """Run the processes until `stop`; return the exit code of the group.

        `announce` is called once the first process is up. If that one ends before, its exit code is returned.
        Cancel: not safe; call `stop`. Raises: ConfigurationError (the first process cannot be started).
        """
        first_up: asyncio.Future[Up] = asyncio.get_running_loop().create_future()
        first = asyncio.create_task(self._keep(0, first_up), name="process 0")
        either: set[asyncio.Future[Any]] = {first, first_up}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not first_up.done():
            first_up.cancel()
            return await first
        announce(first_up.result())
        others = [asyncio.create_task(self._keep(n), name=f"process {n}") for n in range(1, self._count)]
        codes = await asyncio.gather(first, *others)
        return 0 if not any(codes) else CUT_SHORT

    def stop(self) -> None:
        """Ask all processes to drain; at the second call, end them at once."""
        is_second = self._stopping.is_set()
        self._stopping.set()
        for listener in self._listeners:
            listener.close()
        for process in self._running:
            with suppress(ProcessLookupError):
                process.kill() if is_second else process.terminate()

    async def _keep(self, number: int, first_up: asyncio.Future[Up] | None = None) -> int:
        """Run process `number`, and another in its place if it ends by itself; return the exit code of the last one."""
        backoff, code = Backoff(SHORTEST_PAUSE, LONGEST_PAUSE), 0
        while not self._stopping.is_set():
            began = time.monotonic()
            is_first = first_up is not None and not first_up.done()
            try:
                code = await self._live(number, first_up)
            except OSError as error:  # the machine has no memory for it, or no file descriptor
                if is_first:
                    raise ConfigurationError(f"no process can be started: {error.strerror}; see its limits.") from error
                code = CUT_SHORT
                logger.error("a process cannot be started, it is tried again", process=number, error=str(error))
            else:
                if self._stopping.is_set() or (first_up is not None and not first_up.done()):
                    return self._exit_code(code)
                logger.error("a process has ended, another one takes its place", process=number, exit_code=code)
            if time.monotonic() - began > STEADY_SECONDS:
                backoff.reset()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff.next_seconds())
        return self._exit_code(code)

    def _exit_code(self, code: int) -> int:
        """Return the exit code of a process that ended with `code`, which is negative if a signal ended it."""
        if self._stopping.is_set() and code == -signal.SIGTERM:
            return 0  # it was still starting: a process that works takes the signal as the begin of its drain
        return code if code >= 0 else CUT_SHORT

    async def _live(self, number: int, first_up: asyncio.Future[Up] | None) -> int:
        """Run one process from its start to its end; return its exit code, negative for a signal."""
        ours, its = socket.socketpair()
        with ours, its:
            shared = [*(listener.fileno() for listener in self._listeners), its.fileno()]
            handed = [f"--listener={listener.fileno()}" for listener in self._listeners]
            process = await asyncio.create_subprocess_exec(
                *self._command,
                *handed,
                f"--parent={its.fileno()}",
                env=os.environ | {"HEADRACE_MANAGEMENT_HOST": "127.0.0.1", "HEADRACE_MANAGEMENT_PORT": "0"},
                pass_fds=shared,
                start_new_session=True,  # Ctrl-C is for the parent, which asks each process once
            )
            its.close()
            self._running.add(process)
            if self._stopping.is_set():
                with suppress(ProcessLookupError):
                    process.terminate()
            hearing = asyncio.create_task(self._hear(ours, number, first_up))
            try:
                return await process.wait()
            finally:
                hearing.cancel()
                self._running.discard(process)
                self._pages.ports = {**self._pages.ports, number: None}

    async def _hear(self, ours: socket.socket, number: int, first_up: asyncio.Future[Up] | None) -> None:
        """Take in that the process is up."""
        ours.setblocking(False)
        said = b""
        while not said.endswith(b"\n"):
            part = await asyncio.get_running_loop().sock_recv(ours, 4_096)
            if not part:
                return
            said += part
        up = read_up(said)
        self._pages.ports = {**self._pages.ports, number: up.management_port}
        if first_up is not None and not first_up.done():
            first_up.set_result(up)
