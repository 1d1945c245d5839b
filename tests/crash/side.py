"""A topic beside that of the load, whose log is meddled with: made again, cut off at its beginning, given partitions.

The platform has to refuse each of these until a person accepts it, and to lose and double nothing that is still there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from tests.crash.cluster import NAME, SIDE, Cluster
from tests.crash.watching import Watch
from tests.support.command import Said, headrace
from tests.support.platform import record
from tests.support.producing import produce
from tests.support.waiting import until
from tests.support.web import http_client

KEYS = 10
SECONDS = 90.0
STATE = f"select key, data from headrace.state where subscription = '{NAME}.side' and key = any($1::text[])"


class Side:
    """What one fault does with the topic; `expected` is the history's, by key."""

    def __init__(self, cluster: Cluster, watch: Watch, name: str, expected: dict[str, list[int]]) -> None:
        self._cluster = cluster
        self._watch = watch
        self._expected = expected
        self._keys = [f"{name}-{number}" for number in range(KEYS)]
        self._admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})

    async def publish(self, numbers: Sequence[int]) -> None:
        """Publish these numbers of every key."""
        records = [
            record(SIDE, "sided", {"key": key, "number": number}, key=key, id=f"{key}/{number}")
            for number in numbers
            for key in self._keys
        ]
        await produce(self._cluster.bootstrap, records)
        for key in self._keys:
            self._expected.setdefault(key, []).extend(numbers)

    async def until_applied(self) -> None:
        """Return when everything that was published and is still there is applied."""

        async def is_applied() -> bool:
            found = await self._applied()
            return all(found.get(key) == self._expected.get(key) for key in self._keys)

        await until(is_applied, f"{SIDE}: {self._keys[0]} and its like are applied", SECONDS)

    async def give_up_what_is_gone(self) -> None:
        """Expect no more than what is applied, of a log that holds nothing any more."""
        found = await self._applied()
        for key in self._keys:
            self._expected[key] = found.get(key, [])

    async def _applied(self) -> dict[str, list[int]]:
        rows = await self._watch.fetch(STATE, self._keys)
        return {row["key"]: json.loads(row["data"])["numbers"] for row in rows}

    async def until_refused(self) -> None:
        """Return when a worker's readiness says that it refuses a partition of the topic, or that the topic grew."""

        async def is_refused() -> bool:
            reasons = await self._reasons()
            return any(SIDE in each or "side/" in each for each in reasons)

        await until(is_refused, f"{SIDE} is refused", SECONDS)

    async def accept(self) -> None:
        """Accept the topic as it is now, as an operator does: again if another fault has refused it."""
        folder, settings = self._cluster.folder, self._cluster.workers[0].service.settings
        said: list[Said] = []

        async def is_accepted() -> bool:
            said.append(await headrace(folder, "topics", "--accept", SIDE, "--yes", settings=settings))
            return said[-1].code == 0

        try:
            await until(is_accepted, f"{SIDE} is accepted", SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {said[-1].err}") from None

    async def make_again(self) -> None:
        """Delete the topic and create it."""
        broker = self._cluster.brokers[0]
        partitions = self._partitions()
        await broker.delete_topic(SIDE)
        await broker.create_topic(SIDE, partitions)

    async def cut_off(self) -> None:
        """Delete every record that is there."""
        partitions = range(self._partitions())
        places = [TopicPartition(SIDE, number, -1) for number in partitions]  # -1: up to the end
        await asyncio.to_thread(lambda: [each.result(30) for each in self._admin.delete_records(places).values()])

    async def grow(self) -> None:
        """Give the topic one more partition."""
        asked = [NewPartitions(SIDE, self._partitions() + 1)]
        await asyncio.to_thread(lambda: self._admin.create_partitions(asked)[SIDE].result(30))

    def _partitions(self) -> int:
        return len(self._admin.list_topics(SIDE, timeout=30).topics[SIDE].partitions)

    async def _reasons(self) -> list[str]:
        told: list[str] = []
        async with http_client(timeout=5) as client:
            for worker in self._cluster.workers:
                with suppress(httpx.TransportError):
                    address = f"http://127.0.0.1:{worker.service.management_port}/health/ready"
                    answer: dict[str, Any] = (await client.get(address)).json()
                    told.append(json.dumps(answer))
        return told
