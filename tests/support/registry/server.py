"""The registry as a process."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

import httpx

from headrace.database import launch
from tests.support.maven import fetched, find_java
from tests.support.ports import free_ports
from tests.support.waiting import until
from tests.support.web import http_client

_POM = Path(__file__).with_name("pom.xml")
_START_SECONDS = 90.0


def find_registry() -> Path:
    """Return the folder of the registry's program; the first call on a machine fetches it."""
    return fetched("registry", _POM, "unpack-dependencies")


class RegistryServer:
    """One registry that keeps its schemas in memory."""

    def __init__(self) -> None:
        (self._port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The value for HEADRACE_SCHEMA_REGISTRY_URL."""
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    async def start(self) -> None:
        """Return when it answers. Call it in the main thread: it ends with the thread that started it."""
        self._process = self._launch()
        await until(self._answers, "the schema registry answers", _START_SECONDS)

    async def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _launch(self) -> subprocess.Popen[bytes]:
        (program,) = find_registry().glob("*-runner.jar")
        options = ["-XX:TieredStopAtLevel=1", "-Xmx256m", "-Dquarkus.http.host=127.0.0.1"]
        command = [find_java(), *options, f"-Dquarkus.http.port={self._port}", "-jar", str(program)]
        quiet = subprocess.DEVNULL
        launched = launch.command("same", command, signal.SIGKILL)
        return subprocess.Popen(launched, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the schema registry has ended by itself"
        try:
            async with http_client() as client:
                return (await client.get(f"{self.url}/subjects")).status_code == 200
        except httpx.HTTPError:
            return False
