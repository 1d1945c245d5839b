"""Orders of the shop while its processes are killed: each one ends, and goods and money agree with the confirmed ones.

`make crash ARGS="--orders 10000"` runs so many on a Kafka and a Postgres of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx

from tests.support.fleet import SETTINGS
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.web import http_client

AT_A_TIME = 16
"""Orders that are published side by side."""
SECONDS = 300
"""So long may it take until more orders have ended."""
Data = dict[str, Any]


class Figures(NamedTuple):
    """What a run came to."""

    orders: int
    kills: int
    confirmed: int
    rejected: int
    money: int
    """What the confirmed orders have cost, and what is missing in the wallets."""
    goods: int
    """What they have taken, and what is missing in the store."""
    seconds: float


@dataclass
class Shop:
    """The processes of the shop, and how to come to its database; `kills` is how often one was ended with -9."""

    services: Sequence[Service]
    address: Callable[[], str | None]
    chance: random.Random
    kills: int = 0
    orders: dict[str, Data] = field(default_factory=dict)
    customers: dict[str, int] = field(default_factory=dict)
    goods: dict[str, int] = field(default_factory=dict)

    def draw(self, count: int) -> None:
        """Draw orders, of which the customers' money and the goods of the store suffice for a part."""
        size = -(-count // 400)
        self.customers = {f"customer-{number}": 900 for number in range(8 * size)}
        self.goods = {f"sku-{number}": 60 for number in range(5 * size)}
        self.orders = {str(number): self._order(number) for number in range(count)}

    async def run(self, kills: int, tell: Callable[[int, int], None]) -> Figures:
        """Place the orders, kill a process so many times, and compare; `tell` hears of orders ended and kills."""
        began = time.monotonic()
        await self.publish("stock.added", [{"sku": sku, "quantity": each} for sku, each in self.goods.items()])
        credits = [{"customer": customer, "amount": each} for customer, each in self.customers.items()]
        await self.publish("wallet.credited", credits)
        placing = asyncio.create_task(self.publish("order.placed", list(self.orders.values())))
        for kill in range(1, kills + 1):
            await self._until_ended(kill * len(self.orders) // (kills + 2), tell)
            victim = self.chance.choice(self.services)
            await victim.kill()
            self.kills += 1
            await victim.start(ready=False)
            await until(victim.is_ready, "it is back", 60)
        await placing
        await self._until_ended(len(self.orders), tell)
        await until(self._is_told, "every customer knows", SECONDS)
        return await self.compare(began)

    async def publish(self, type_: str, events: Sequence[Data]) -> None:
        """Publish each event until it is answered with 202, by whichever process: a copy is recognised by its key."""
        waiting = list(enumerate(events))
        waiting.reverse()

        async def work() -> None:
            async with http_client(timeout=5) as client:
                while waiting:
                    number, data = waiting.pop()

                    async def is_accepted(number: int = number, data: Data = data) -> bool:
                        with suppress(httpx.TransportError):
                            headers = {"Idempotency-Key": f"{type_}-{number}"}
                            url = f"{self.chance.choice(self.services).url}/events/{type_}"
                            answer = await client.post(url, json=data, headers=headers)
                            assert answer.status_code in (202, 429, 503), answer.text
                            return answer.status_code == 202
                        return False

                    await until(is_accepted, f"{type_} {number} is accepted", 60)

        await asyncio.gather(*(work() for _ in range(AT_A_TIME)))

    async def compare(self, began: float) -> Figures:
        """The sums of the confirmed orders, and nothing else, have left stock and wallets."""
        seen = await self.states("orders", "order")
        confirmed = [self.orders[number] for number, each in seen.items() if each["status"] == "confirmed"]
        count = len(self.orders)
        assert 0 < len(confirmed) < count, "some orders are confirmed, and some rejected"
        taken, paid = Counter[str](), Counter[str]()
        for order in confirmed:
            paid[order["customer"]] += order["total"]
            for line in order["items"]:
                taken[line["sku"]] += line["quantity"]
        left = {sku: {"available": each - taken[sku], "reserved": taken[sku]} for sku, each in self.goods.items()}

        async def is_so() -> bool:
            return await self.states("stock", "stock") == left

        with suppress(TimeoutError):
            await until(is_so, "what was put back has arrived", 30)
        assert await self.states("stock", "stock") == left
        wallets = await self.states("wallets", "wallet")
        assert {each: wallets[each]["balance"] for each in self.customers} == {
            each: amount - paid[each] for each, amount in self.customers.items()
        }
        rows = await self.fetch("select status, count(*) as count from headrace.saga group by status")
        statuses = {row["status"]: row["count"] for row in rows}
        assert statuses == {"completed": len(confirmed), "compensated": count - len(confirmed)}
        assert await self.fetch("select from headrace.dead_letter") == []
        assert await self.fetch("select from headrace.timer") == [], "no time-out is left of a step that is over"
        sums = paid.total(), taken.total()
        return Figures(count, self.kills, len(confirmed), count - len(confirmed), *sums, time.monotonic() - began)

    async def fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database."""
        connection = await asyncpg.connect(self.address())
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()

    async def states(self, subscription: str, state: str) -> Data:
        """Return the states of a subscription, by key."""
        sql = "select key, data from headrace.state where subscription = $1 and state = $2"
        return {row["key"]: json.loads(row["data"]) for row in await self.fetch(sql, f"shop.{subscription}", state)}

    async def _until_ended(self, count: int, tell: Callable[[int, int], None]) -> None:
        async def have_ended() -> bool:
            rows = await self.fetch("select count(*) as count from headrace.saga where ended_at is not null")
            tell(rows[0]["count"], self.kills)
            return bool(rows[0]["count"] >= count)

        await until(have_ended, f"{count} orders have ended", SECONDS)

    async def _is_told(self) -> bool:
        seen = await self.states("orders", "order")
        return len(seen) == len(self.orders) and all(each["status"] != "placed" for each in seen.values())

    def _order(self, number: int) -> Data:
        chance = self.chance
        lines = [{"sku": sku, "quantity": chance.randint(1, 3)} for sku in chance.sample(sorted(self.goods), 2)]
        customer = chance.choice(sorted(self.customers))
        return {"order": str(number), "customer": customer, "items": lines, "total": chance.randint(1, 150)}


@asynccontextmanager
async def shop_on_kafka(
    folder: Path, workers: int, partitions: int, seed: int, *, is_fast: bool = False, settings: Mapping[str, str] = {}
) -> AsyncIterator[Shop]:
    """Run the shop's processes on a Kafka and a Postgres of their own."""
    async with AsyncExitStack() as stack:
        kafka, postgres = KafkaServer(is_fast=is_fast), PostgresServer()
        stack.push_async_callback(kafka.stop)
        stack.push_async_callback(postgres.stop)
        await asyncio.gather(kafka.start(), postgres.start())
        url = await stack.enter_async_context(postgres.database())
        own = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": url, "HEADRACE_PARTITIONS": str(partitions)}
        services = []
        for number in range(workers):
            place = folder / f"shop-{number}"
            place.mkdir()
            services.append(Service(place, {**SETTINGS, **own, **settings}))
            stack.push_async_callback(services[-1].stop)
        await services[0].start()
        await asyncio.gather(*(service.start() for service in services[1:]))
        yield Shop(services, lambda: url, random.Random(seed))
