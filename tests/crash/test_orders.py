"""The shop is killed again and again while orders are under way: each one ends, and goods and money agree."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from headrace.database.embedded import running_address
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.web import http_client

KILLS = 3
ORDERS = 400
SEED = 7
CUSTOMERS = {f"customer-{number}": 900 for number in range(8)}
SKUS = {f"sku-{number}": 60 for number in range(5)}


@pytest.mark.timeout(150)
async def test_every_order_ends_exactly_once_through_kills(tmp_path: Path) -> None:
    """Platform and PostgreSQL die together; orders come in all the time."""
    service = Service(tmp_path, {"HEADRACE_LOG": "embedded", "HEADRACE_PARTITIONS": "3"})
    chance = random.Random(SEED)
    orders = {str(number): _order(chance, number) for number in range(ORDERS)}
    try:
        await service.start()
        await _publish(service, "stock.added", [{"sku": sku, "quantity": each} for sku, each in SKUS.items()])
        credits = [{"customer": customer, "amount": each} for customer, each in CUSTOMERS.items()]
        await _publish(service, "wallet.credited", credits)
        placing = asyncio.create_task(_publish(service, "order.placed", list(orders.values())))
        for kill in range(1, KILLS + 1):
            await until(lambda: _ended(tmp_path, kill * ORDERS // (KILLS + 2)), "more orders have ended", 60)  # noqa: B023
            await service.kill()
            await service.start(ready=False)
            await until(service.is_ready, "it is back", 60)
        await placing
        await until(lambda: _told(tmp_path, ORDERS), "every customer knows", 60)
        await _compare(tmp_path, orders)
        assert await service.leave() == 0
    finally:
        await service.stop()


async def _compare(folder: Path, orders: dict[str, dict[str, Any]]) -> None:
    """The sums of the confirmed orders, and nothing else, have left stock and wallets."""
    seen = await _states(folder, "orders", "order")
    confirmed = [orders[number] for number, each in seen.items() if each["status"] == "confirmed"]
    assert 0 < len(confirmed) < ORDERS, "some orders are confirmed, and some rejected"
    taken, paid = Counter[str](), Counter[str]()
    for order in confirmed:
        paid[order["customer"]] += order["total"]
        for line in order["items"]:
            taken[line["sku"]] += line["quantity"]
    left = {sku: {"available": SKUS[sku] - taken[sku], "reserved": taken[sku]} for sku in SKUS}

    async def is_so() -> bool:
        return await _states(folder, "stock", "stock") == left

    with suppress(TimeoutError):
        await until(is_so, "what was put back has arrived", 30)
    assert await _states(folder, "stock", "stock") == left
    wallets = await _states(folder, "wallets", "wallet")
    assert {each: wallets[each]["balance"] for each in CUSTOMERS} == {
        each: amount - paid[each] for each, amount in CUSTOMERS.items()
    }
    rows = await _fetch(folder, "select status, count(*) as count from headrace.saga group by status")
    statuses = {row["status"]: row["count"] for row in rows}
    assert statuses == {"completed": len(confirmed), "compensated": ORDERS - len(confirmed)}
    assert await _fetch(folder, "select from headrace.dead_letter") == []
    assert await _fetch(folder, "select from headrace.timer") == [], "no time-out is left of a step that is over"


def _order(chance: random.Random, number: int) -> dict[str, Any]:
    lines = [{"sku": sku, "quantity": chance.randint(1, 3)} for sku in chance.sample(sorted(SKUS), 2)]
    customer = chance.choice(sorted(CUSTOMERS))
    return {"order": str(number), "customer": customer, "items": lines, "total": chance.randint(1, 150)}


async def _publish(service: Service, type_: str, events: list[dict[str, Any]]) -> None:
    """Publish each event until it is answered with 202: a copy is recognised by its key."""
    async with http_client(timeout=5) as client:
        for number, data in enumerate(events):

            async def is_accepted(number: int = number, data: dict[str, Any] = data) -> bool:
                with suppress(httpx.TransportError):
                    headers = {"Idempotency-Key": f"{type_}-{number}"}
                    answer = await client.post(f"{service.url}/events/{type_}", json=data, headers=headers)
                    assert answer.status_code in (202, 503), answer.text
                    return answer.status_code == 202
                return False

            await until(is_accepted, f"{type_} {number} is accepted", 60)


async def _fetch(folder: Path, sql: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(running_address(folder / "data/postgres"))
    try:
        return list(await connection.fetch(sql, *arguments))
    finally:
        await connection.close()


async def _states(folder: Path, subscription: str, state: str) -> dict[str, Any]:
    sql = "select key, data from headrace.state where subscription = $1 and state = $2"
    return {row["key"]: json.loads(row["data"]) for row in await _fetch(folder, sql, f"shop.{subscription}", state)}


async def _ended(folder: Path, count: int) -> bool:
    rows = await _fetch(folder, "select count(*) as count from headrace.saga where ended_at is not null")
    return bool(rows[0]["count"] >= count)


async def _told(folder: Path, count: int) -> bool:
    seen = await _states(folder, "orders", "order")
    return len(seen) == count and all(each["status"] != "placed" for each in seen.values())
