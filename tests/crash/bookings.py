"""Clients of a route that writes rows and emits: each request is made until it is answered."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import httpx

from tests.crash.clients import Clients
from tests.support.web import http_client

CLIENTS, ACCOUNTS = 2, 4
PAUSE_SECONDS = 0.1
TRIES = 400
"""Of one request."""


class Bookings(Clients):
    """Books at the workers, as long as `run` runs; every client shares the accounts, so that transactions overlap."""

    count = CLIENTS

    async def be_client(self, number: int) -> None:
        """Book until it is over."""
        chance, sent = random.Random(number), 0
        async with http_client(timeout=5) as client:
            while await self.is_wanted():
                sent += 1
                path = f"/bookings/account-{chance.randrange(ACCOUNTS)}/{number}-{sent}"
                await self._book(client, path, chance)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _book(self, client: httpx.AsyncClient, path: str, chance: random.Random) -> None:
        """Raises: TimeoutError."""
        for _ in range(TRIES):
            worker = chance.choice(self.cluster.workers)
            with suppress(httpx.TransportError):
                answer = await client.post(worker.service.url + path)
                if answer.status_code == 201:
                    self.sent.booked += 1
                    return
                if answer.status_code != 503:
                    raise RuntimeError(f"{path} was answered with {answer.status_code}: {answer.text}")
            await asyncio.sleep(PAUSE_SECONDS)
        raise TimeoutError(f"{path} was not answered in {TRIES} tries")
