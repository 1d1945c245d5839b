"""The application with a provider that obeys the tests."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from shipping.payments import CardRefusedError, ProviderAwayError, get_provider
from shipping.service import app


class FakeProvider:
    """Takes payments in memory, once for each key, as real providers do."""

    def __init__(self) -> None:
        self.is_away = False
        self.is_silent = False
        self.charged: dict[str, int] = {}
        self.refunded: set[str] = set()

    async def charge(self, customer: str, cents: int, *, idempotency_key: str) -> str:
        if self.is_away:
            raise ProviderAwayError("no answer")
        if customer == "mallory":
            raise CardRefusedError("the card of mallory was refused")
        self.charged[f"receipt of {idempotency_key}"] = cents
        if self.is_silent:
            raise ProviderAwayError("the answer is lost")
        return f"receipt of {idempotency_key}"

    async def refund(self, receipt: str, *, idempotency_key: str) -> None:
        self.refunded.add(receipt)

    @property
    def taken(self) -> int:
        """What it has taken and not given back."""
        return sum(cents for receipt, cents in self.charged.items() if receipt not in self.refunded)


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def headrace_app(provider: FakeProvider) -> Iterator[FastAPI]:
    app.dependency_overrides[get_provider] = lambda: provider
    yield app
    app.dependency_overrides.clear()
