"""A service as a process of its own, to be killed, paused and asked to leave."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from tests.support.ports import free_ports
from tests.support.proc import stats
from tests.support.process import ROOT, Process, start_headrace
from tests.support.shared import give_database
from tests.support.waiting import until
from tests.support.web import http_client


class Service:
    """`headrace run APP` with `settings` of its own, for the next start; `stop()` ends it in whatever state it is."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        app: str = "shop.service:app",
        role: str = "all",
        workers: int = 1,
    ) -> None:
        self.port, self.management_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self._app = app
        self._role, self._workers = role, workers
        self._folder = folder
        self.settings = dict(settings)
        self._log = folder / f"service-{self.port}.log"
        self._process: Process | None = None
        self._temporary: Path | None = None

    @property
    def output(self) -> str:
        """What it has written so far, over all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def children(self) -> set[int]:
        """The ids of the processes that it has started and that live."""
        return {pid for pid, (state, parent, *_) in stats().items() if int(parent) == self.pid and state != "Z"}

    @property
    def is_running(self) -> bool:
        """True while its process lives."""
        return self._process is not None and self._process.returncode is None

    async def start(self, *, ready: bool = True, is_quick: bool = True, wrapper: Sequence[str] = ()) -> None:
        """Start it; return when it is ready, if asked to.

        `is_quick=False` starts an interpreter and makes the database, as a user's first start does; otherwise it is a
        fork, and an embedded database is a copy. A `wrapper` is a command that runs the interpreter's.
        """
        if self._temporary is None:  # short, for sockets; what a killed service leaves there goes with stop()
            self._temporary = Path(tempfile.mkdtemp(prefix="headrace-test-"))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")} | {
            "PYTHONPATH": f"{ROOT / 'app'}:{ROOT}",
            "HEADRACE_DATA_DIR": str(self._folder / "data"),
            "HEADRACE_MANAGEMENT_PORT": str(self.management_port),
            "TMPDIR": str(self._temporary),
            **self.settings,
        }
        if is_quick and environment.get("HEADRACE_DATABASE", "embedded") == "embedded":
            await asyncio.to_thread(give_database, Path(environment["HEADRACE_DATA_DIR"]))
        command = ["run", self._app, "--role", self._role, "--port", str(self.port)]
        if self._workers > 1:
            command += ["--workers", str(self._workers)]
        with self._log.open("ab") as log:
            self._process = await start_headrace(
                command, environment, self._folder, log, is_fork=is_quick and not wrapper, wrapper=wrapper
            )
        if ready:
            await until(self.is_ready, f"the service is ready:\n{self.output[-2000:]}", 60)

    async def is_ready(self) -> bool:
        """Ask its readiness probe."""
        if self._process is not None and self._process.returncode is not None:
            raise AssertionError(f"the service ended with {self._process.returncode}:\n{self.output[-4000:]}")
        try:
            async with http_client(timeout=2) as client:
                answer = await client.get(f"http://127.0.0.1:{self.management_port}/health/ready")
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    async def ended(self, seconds: float = 60) -> int:
        """Return its exit code once it has ended by itself."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), seconds)

    async def kill(self) -> None:
        """End it with -9."""
        await self._end(signal.SIGKILL)

    async def leave(self) -> int:
        """Ask it to leave; return its exit code."""
        return await self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze it, whatever it does."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue."""
        os.kill(self.pid, signal.SIGCONT)

    async def stop(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.returncode is None:
            self.resume()
            await self._end(signal.SIGKILL)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    async def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), 60)
