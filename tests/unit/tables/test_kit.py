"""The kit for tests runs the handlers of a projection as the engine does, and proves them exactly once."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from headrace import Event, Headrace, Table
from headrace.errors import ConfigurationError
from headrace.testing import Handlers, assert_exactly_once


class Sold(Event, type="sold", topic="sales", key="sku"):
    sku: str
    amount: int


class Total(BaseModel):
    sku: str
    sales: int = 0
    revenue: int = 0


def service() -> FastAPI:
    events = Headrace("shop")
    totals = events.projection("totals", Total, key="sku")

    @totals.on(Sold)
    def total(event: Sold, rows: Table[Total]) -> None:
        rows.add(event.sku, sales=1, revenue=event.amount)
        if event.amount > 99:
            raise ValueError("too much")

    app = FastAPI(lifespan=events.lifespan)
    app.include_router(events.router)
    return app


def test_rows_are_seen_without_a_database() -> None:
    handlers = Handlers(service())
    handlers.run(Sold(sku="b", amount=1), Sold(sku="a", amount=5), Sold(sku="b", amount=2))
    assert handlers.rows(Total) == [Total(sku="a", sales=1, revenue=5), Total(sku="b", sales=2, revenue=3)]
    handlers.when(Sold(sku="b", amount=100), allow=ValueError)
    assert handlers.rows(Total)[1] == Total(sku="b", sales=2, revenue=3)
    with pytest.raises(ConfigurationError, match="no projection has rows of Sold"):
        handlers.rows(Sold)


def test_projection_is_proved_exactly_once() -> None:
    assert_exactly_once(service(), [Sold(sku="ab"[n % 2], amount=n) for n in range(6)])
