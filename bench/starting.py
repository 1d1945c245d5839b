"""Starts of the example service on its embedded log and PostgreSQL, until the first event's effect is seen by HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from bench.processes import cpu_seconds
from tests.support.ports import free_ports
from tests.support.web import http_client

ROOT = Path(__file__).parents[1]
APP = "shop.service:app"
START_SECONDS, STOP_SECONDS, PAUSE_SECONDS = 120, 60, 0.005

Part = tuple[str, float, float]
"""(name, begin, end), in seconds from the start."""


class Start(NamedTuple):
    """Seconds from the start of the process."""

    answers: float
    """Until HTTP answers."""
    accepted: float
    """Until the first event is taken in."""
    applied: float
    """Until its effect is read over HTTP."""
    processor: float
    """Processor seconds until then, of the service and its PostgreSQL."""
    parts: Sequence[Part]
    """What it did meanwhile; empty unless asked for."""


async def starts(folder: Path, *, is_timed: bool) -> tuple[Start, Start]:
    """Return the first start in the folder, which is made, and the second one there.

    Keep the folder until all is measured: ext4 passes over what was deleted within the last minutes, one by one, for
    each file that it makes, and behind the deletion of a database PostgreSQL's 1,000 files take half a second longer.
    """
    folder.mkdir()
    return await _start(folder, "first", is_timed), await _start(folder, "second", is_timed)


async def _start(folder: Path, customer: str, is_timed: bool) -> Start:
    port, management = free_ports(2)
    timeline = folder / f"{customer}.timeline"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "OTEL_"))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment |= {"HEADRACE_DATA_DIR": str(folder / "data"), "HEADRACE_MANAGEMENT_PORT": str(management)}
    if is_timed:
        environment |= {"TIMELINE": str(timeline), "PYTHONPATH": str(ROOT)}
    module = "bench.timeline" if is_timed else "headrace"
    command = [sys.executable, "-m", module, "run", APP, "--port", str(port)]
    async with _process(command, environment, folder) as (process, began):
        async with http_client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            answers = await _until(process, client, "GET", "/health/ready", {200, 503})
            data = {"customer": customer, "amount": 1}
            accepted = await _until(process, client, "POST", "/events/wallet.credited", {202}, data)
            applied = await _until(process, client, "GET", f"/state/wallets/wallet/{customer}", {200})
        processor = cpu_seconds(process.pid)
    lines = [json.loads(line) for line in timeline.read_text().splitlines()] if is_timed else []
    parts = [(name, begin - began, end - began) for name, begin, end in lines]
    return Start(answers - began, accepted - began, applied - began, processor, parts)


async def _until(
    process: asyncio.subprocess.Process,
    client: httpx.AsyncClient,
    method: str,
    path: str,
    wanted: set[int],
    data: dict[str, object] | None = None,
) -> float:
    """Return when the answer was one of the wanted. Raises: RuntimeError if the service has ended, TimeoutError."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"the service ended with exit code {process.returncode}")
            try:
                if (await client.request(method, path, json=data)).status_code in wanted:
                    return time.monotonic()
            except httpx.TransportError:
                pass
            await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def _process(
    command: Sequence[str], environment: dict[str, str], folder: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, float]]:
    """Yield the process and when it was started; end it politely."""
    with (folder / "service.log").open("ab") as log:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command, env=environment | {"STARTED": str(began)}, cwd=folder, stdout=log, stderr=log
        )
        try:
            yield process, began
        except RuntimeError as error:
            raise SystemExit(f"{error}: {(folder / 'service.log').read_text()[-1000:]}") from error
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
