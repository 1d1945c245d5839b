"""One server at the HTTP door: its peak in a closed loop, and what it does at a multiple of that."""

from __future__ import annotations

import itertools
import json
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from bench.contenders import PYTHON, Contender, Store
from bench.http.client import HOST, Answers, closed, open_loop
from bench.measure import process
from bench.processes import cpu_seconds, resident_bytes
from bench.servers import Servers, Topic
from tests.support.ports import free_ports
from tests.support.waiting import until
from tests.support.wallets import Expected

CONNECTIONS = 64
"""Requests under way in the closed loop."""
BATCH_EVENTS = 100
WARM_SECONDS, START_SECONDS = 3.0, 60
KEYS = 10_000

_COMMAND = (PYTHON, "-m", "headrace", "run", "shop.service:app", "--role", "ingest", "--port")
HEADRACE = Contender("headrace", "Headrace", "accepted is kept", _COMMAND, Store.NONE)
BARE_ROUTE = Contender(
    "bare-route", "bare FastAPI route", "accepted is kept", (PYTHON, "-m", "bench.peers.bare_route"), Store.NONE
)


@dataclass(frozen=True)
class Door:
    """A server that listens."""

    port: int
    pid: int

    async def peak(self, request: Callable[[], bytes], seconds: float) -> tuple[Answers, float]:
        """Return what it answered as fast as it could, and the processor seconds that it took."""
        await closed(self.port, request, CONNECTIONS, WARM_SECONDS)
        before = cpu_seconds(self.pid)
        return await closed(self.port, request, CONNECTIONS, seconds), cpu_seconds(self.pid) - before

    async def flood(self, request: Callable[[], bytes], rate: float, seconds: float) -> tuple[Answers, int]:
        """Return what it answered at so many requests a second, and how many bytes it grew by."""
        before = resident_bytes(self.pid)
        answers = await open_loop(self.port, request, rate, seconds)
        return answers, resident_bytes(self.pid) - before


@asynccontextmanager
async def door(servers: Servers, contender: Contender) -> AsyncIterator[Door]:
    """Run the server until it answers, on a topic of its own."""
    (port,) = free_ports(1)
    await servers.topic("wallets", 6, 0, 1)
    command = (*contender.command, str(port)) if contender is HEADRACE else contender.command
    running = replace(contender, command=command, environment={"PORT": str(port)})
    async with servers.database() as url, process(servers, running, _topic(), url) as worker:
        await until(lambda: _answers(port), f"{contender.label} answers", START_SECONDS)
        yield Door(port, worker.pid)


def single() -> Callable[[], bytes]:
    """Return what makes requests of one event."""
    numbers = itertools.count()
    head = f"POST /events/wallet.credited HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"

    def request() -> bytes:
        body = f'{{"customer":"customer-{next(numbers) % KEYS}","amount":5}}'
        return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    return request


def batches() -> Callable[[], bytes]:
    """Return what makes requests of a hundred events; a few of them in turn, so that the client costs little."""
    numbers = itertools.count()

    def body() -> bytes:
        events = [
            {
                "specversion": "1.0",
                "id": f"{next(numbers)}",
                "source": "/bench",
                "type": "wallet.credited",
                "data": {"customer": f"customer-{next(numbers) % KEYS}", "amount": 5},
            }
            for _ in range(BATCH_EVENTS)
        ]
        return json.dumps(events).encode()

    kept = []
    for _ in range(CONNECTIONS):
        made = body()
        head = f"POST /events HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/cloudevents-batch+json\r\n"
        kept.append(f"{head}Content-Length: {len(made)}\r\n\r\n".encode() + made)
    turn = itertools.cycle(kept)
    return lambda: next(turn)


def _topic() -> Topic:
    return Topic("wallets", 6, 0, 1, Expected(), 0)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/openapi.json", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
