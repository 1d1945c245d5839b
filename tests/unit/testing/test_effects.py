"""The kit runs effects at once, and remembers the answers of their steps."""

from __future__ import annotations

import pytest
from fastapi import FastAPI

from headrace import Event, Headrace, Step
from headrace.testing import Handlers


class Placed(Event, type="placed", topic="orders", key="order"):
    order: str


class Paid(Event, type="paid", topic="payments", key="order"):
    order: str
    receipt: str


class Bank:
    """Answers each charge, and says which keys it was given."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.is_closed = False

    async def charge(self, order: str, key: str) -> str:
        self.keys.append(key)
        return f"receipt of {order}"

    async def post(self) -> None:
        if self.is_closed:
            raise ConnectionError("closed")


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
def handlers(bank: Bank) -> Handlers:
    events = Headrace("shop")
    app = FastAPI(lifespan=events.lifespan)
    events.declare(Paid)

    @events.subscription("payments").effect(Placed, attempts=3)
    async def pay(event: Placed, step: Step) -> Paid:
        receipt = await step("charge", bank.charge, event.order, step.key)
        await step("post", bank.post)
        return Paid(order=event.order, receipt=receipt)

    return Handlers(app)


def test_effect_is_called_and_emits_what_it_returns(handlers: Handlers, bank: Bank) -> None:
    with handlers:
        then = handlers.when(Placed(order="1"))
        assert (then.fate, then.emits) == ("applied", [Paid(order="1", receipt="receipt of 1")])
        assert then.steps[0].handler == "pay"
        handlers.when(Placed(order="2"))
        assert len(set(bank.keys)) == 2


def test_error_of_an_effect_is_raised_as_it_is(handlers: Handlers, bank: Bank) -> None:
    bank.is_closed = True
    with handlers, pytest.raises(ConnectionError, match="closed"):
        handlers.when(Placed(order="1"))


def test_retry_takes_the_answers_of_the_run_before(handlers: Handlers, bank: Bank) -> None:
    bank.is_closed = True
    with handlers:
        assert handlers.when(Placed(order="1"), allow=ConnectionError).fate == "retry"
        bank.is_closed = False
        assert handlers.move(hours=1).emits == [Paid(order="1", receipt="receipt of 1")]
        assert len(bank.keys) == 1
