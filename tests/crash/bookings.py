"""Clients of a route that writes rows and emits: each request is made until it is answered."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import httpx

from tests.crash.cluster import Cluster
from tests.crash.history import Sent
from tests.support.web import http_client

CLIENTS, ACCOUNTS = 2, 4
PAUSE_SECONDS = 0.1
TRIES = 400
"""Of one request."""


class Bookings:
    """Books at the workers, as long as `run` runs; every client shares the accounts, so that transactions overlap."""

    def __init__(self, cluster: Cluster, sent: Sent) -> None:
        self._cluster = cluster
        self._sent = sent
        self._is_over = False

    async def run(self) -> None:
        """Book until `stop`; ends when the last requests are answered."""
        await asyncio.gather(*(self._be_client(number) for number in range(CLIENTS)))

    def stop(self) -> None:
        """Begin no further booking."""
        self._is_over = True

    async def _be_client(self, number: int) -> None:
        chance, sent = random.Random(number), 0
        async with http_client(timeout=5) as client:
            while not self._is_over:
                sent += 1
                path = f"/bookings/account-{chance.randrange(ACCOUNTS)}/{number}-{sent}"
                await self._book(client, path, chance)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _book(self, client: httpx.AsyncClient, path: str, chance: random.Random) -> None:
        """Raises: TimeoutError."""
        for _ in range(TRIES):
            worker = chance.choice(self._cluster.workers)
            with suppress(httpx.TransportError):
                answer = await client.post(worker.service.url + path)
                if answer.status_code == 201:
                    self._sent.booked += 1
                    return
                if answer.status_code != 503:
                    raise RuntimeError(f"{path} was answered with {answer.status_code}: {answer.text}")
            await asyncio.sleep(PAUSE_SECONDS)
        raise TimeoutError(f"{path} was not answered in {TRIES} tries")
