"""Clients of the workers' own door: each waits for its answer, and posts again what got none, in each of four forms.

A client has keys of its own, whose numbers it posts in order. Some requests are given so little time that their outcome
is unknown without any fault, and some of these are left as they are: the client then posts no more of their keys.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from tests.crash.clients import Clients
from tests.support.web import http_client

CLIENTS, KEYS, EACH = 8, 6, 60
"""Clients, keys that each has open at a time, and events of a key."""
MOST = 12
"""Events of a batch."""
PAUSE_SECONDS = 0.02
SECONDS, FEW_SECONDS, IMPATIENT = 3.0, 0.02, 0.15
"""How long an answer is waited for, and how long by a share of the tries."""
LEFT = 0.2
"""The share of unknown outcomes that stay unknown."""
ECHOES = 0.1
AGAIN = (429, 503)
"""Answers after which a request is sent again."""
TRIES = 1_000
"""Of one request."""
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


@dataclass(frozen=True)
class Request:
    """What is sent at each try, and the events of each key in it."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    keys: Counter[str]


class Posting(Clients):
    """Posts to the workers, as long as `run` runs."""

    count = CLIENTS

    async def be_client(self, number: int) -> None:
        """Post until it is over."""
        chance = random.Random(self.cluster.plan.seed * 1_000 + number)
        keys = Keys(f"post-{number}", chance)
        async with http_client() as client:
            while await self.is_wanted():
                request = keys.request()
                for key, count in request.keys.items():
                    self.sent.posted[key].tried += count
                if await self._post(client, request, chance):
                    for key, count in request.keys.items():
                        self.sent.posted[key].accepted += count
                else:
                    keys.leave(request.keys)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _post(self, client: httpx.AsyncClient, request: Request, chance: random.Random) -> bool:
        """Return True once it is answered with 202, and False if its outcome is left unknown. Raises: TimeoutError."""
        for _ in range(TRIES):
            worker = chance.choice(self.cluster.workers)
            seconds = FEW_SECONDS if chance.random() < IMPATIENT else SECONDS
            url = worker.service.url + request.path
            try:
                answer = await client.post(url, content=request.body, headers=dict(request.headers), timeout=seconds)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 202:
                self._count(answer, request)
                return True
            if answer is not None and answer.status_code not in AGAIN:
                raise RuntimeError(f"POST {request.path} was answered with {answer.status_code}: {answer.text}")
            self.sent.extras["posted in vain"] += 1
            if chance.random() < LEFT:
                self.sent.extras["posted and left"] += 1
                return False
            await asyncio.sleep(PAUSE_SECONDS)
        raise TimeoutError(f"POST {request.path} was not answered in {TRIES} tries")

    def _count(self, answer: httpx.Response, request: Request) -> None:
        accepted = answer.json()["accepted"]
        if accepted != request.keys.total():
            raise RuntimeError(f"{accepted} of {request.keys.total()} events of a request were accepted")
        self.sent.extras["posted"] += accepted


class Keys:
    """The keys of one client, and what it posts of them next."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self._name = name
        self._chance = chance
        self._made = 0
        self._open: dict[str, int] = {}

    def request(self) -> Request:
        """Return the next request, in a form of chance."""
        form = self._chance.choice([self._structured, self._binary, self._plain, self._batch])
        return form()

    def leave(self, keys: Counter[str]) -> None:
        """Post no more of these."""
        for key in keys:
            self._open.pop(key, None)

    def _structured(self) -> Request:
        event = self._next()
        return Request("/events", {"content-type": STRUCTURED}, json.dumps(_event(event)).encode(), _keys([event]))

    def _batch(self) -> Request:
        events = [self._next() for _ in range(self._chance.randint(2, MOST))]
        body = json.dumps([_event(event) for event in events]).encode()
        return Request("/events", {"content-type": BATCH}, body, _keys(events))

    def _binary(self) -> Request:
        event = self._next()
        attributes = {"ce-specversion": "1.0", "ce-id": _id(event), "ce-source": "/crash", "ce-type": "noted"}
        return Request(
            "/events", {"content-type": "application/json", **attributes}, json.dumps(event).encode(), _keys([event])
        )

    def _plain(self) -> Request:
        event = self._next()
        headers = {"content-type": "application/json", "idempotency-key": _id(event)}
        return Request("/events/noted", headers, json.dumps(event).encode(), _keys([event]))

    def _next(self) -> dict[str, object]:
        """Return the data of the next event of a key of chance."""
        while len(self._open) < KEYS:
            self._open[f"{self._name}-{self._made}"] = 0
            self._made += 1
        key = self._chance.choice(list(self._open))
        number = self._open[key]
        self._open[key] = number + 1
        if number + 1 == EACH:
            del self._open[key]
        return {"key": key, "number": number} | ({"echoes": True} if self._chance.random() < ECHOES else {})


def _id(data: Mapping[str, object]) -> str:
    return f"{data['key']}/{data['number']}"


def _event(data: Mapping[str, object]) -> dict[str, object]:
    return {"specversion": "1.0", "id": _id(data), "source": "/crash", "type": "noted", "data": data}


def _keys(events: list[dict[str, object]]) -> Counter[str]:
    return Counter(str(event["key"]) for event in events)
