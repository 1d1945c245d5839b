"""The shop is killed again and again while orders are under way: each one ends, and goods and money agree."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from headrace.database.embedded import running_address
from tests.crash.orders import Shop, shop_on_kafka
from tests.support.service import Service

SEED = 7


@pytest.mark.timeout(150)
async def test_every_order_ends_exactly_once_through_kills(tmp_path: Path) -> None:
    """Platform and PostgreSQL die together; orders come in all the time."""
    service = Service(tmp_path, {"HEADRACE_LOG": "embedded", "HEADRACE_PARTITIONS": "3"})
    shop = Shop([service], lambda: running_address(tmp_path / "data/postgres"), random.Random(SEED))
    shop.draw(400)
    try:
        await service.start()
        figures = await shop.run(3, lambda ended, kills: None)
        assert (figures.orders, figures.kills) == (400, 3)
        assert await service.leave() == 0
    finally:
        await service.stop()


@pytest.mark.timeout(240)
async def test_orders_end_once_on_kafka_while_processes_are_killed(tmp_path: Path) -> None:
    """`make crash ARGS="--orders 10000"` is the same with more of everything."""
    async with shop_on_kafka(tmp_path, 2, 4, SEED) as shop:
        shop.draw(600)
        figures = await shop.run(3, lambda ended, kills: None)
        assert (figures.orders, figures.kills) == (600, 3)
        assert [await service.leave() for service in shop.services] == [0, 0]
