"""Whatever the OpenAPI document allows, and much that it does not: no request fails in the server, and work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.service import Service
from tests.support.waiting import until
from tests.support.web import http_client

EXAMPLES = 25
OF_THE_EXAMPLE = ("/gift-cards", "/transfers", "/orders")
"""Routes of the example service itself, which documents fewer of its answers."""
ENDLESS = "/events/stream"
KNOWN = {
    "name": ["wallets", "orders"],
    "subscription": ["wallets"],
    "state": ["wallet"],
    "saga": ["orders"],
    "key": ["ada", "nul\x00", "x" * 600, "\U0001f525"],
    "type": ["wallet.credited", "order.placed"],
}
"""Names that exist, for parameters in a path: a made-up one is always answered 404."""

HUGE = 10**30
"""A number that no column holds."""


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(tmp_path, {})
    try:
        await service.start()
        yield service
    finally:
        await service.stop()


def ask_everything(url: str) -> list[str]:
    """Send requests to every route; return what each of them was. Raises: AssertionError (a wrong answer)."""
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations: list[Any] = [result.ok() for result in document.get_all_operations()]  # type: ignore[union-attr]
    for operation in operations:
        if operation.path != ENDLESS:
            ask(url, operation)
    return [operation.path for operation in operations]


def ask(url: str, operation: Any) -> None:
    checks: list[Any] = [did_not_fail]
    if not operation.path.startswith(OF_THE_EXAMPLE):
        checks += [status_code_conformance, content_type_conformance, response_schema_conformance]

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(
        case=operation.as_strategy(),
        names=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in KNOWN.items()}),
        is_huge=st.booleans(),
    )
    def send(case: Any, names: dict[str, str], is_huge: bool) -> None:
        for name in case.path_parameters or {}:
            if name in names:
                case.path_parameters[name] = names[name]
        case.query = {name: HUGE if is_huge and type(value) is int else value for name, value in case.query.items()}
        case.query |= {"wait": 0.1} if "after" in case.query else {}
        case.validate_response(case.call(base_url=url), checks=checks)

    send()


def did_not_fail(context: Any, response: Any, case: Any) -> None:
    """Refuse an answer of a fault in the server; 503 tells of an outage, or that a wait is over."""
    assert response.status_code != 500, f"{case.method} {case.path}: {response.text}"


async def test_no_request_fails_in_the_server(shop: Service) -> None:
    asked = await asyncio.to_thread(ask_everything, shop.url)
    assert {"/events", "/events/{type}", "/dead-letters/{decision}", "/orders/{order}"} <= set(asked)
    assert "request failed" not in shop.output
    assert "Traceback" not in shop.output
    async with http_client() as client:
        await client.post(f"{shop.url}/subscriptions/wallets/resume")  # a request may have paused it
        sent = await client.post(f"{shop.url}/events/wallet.credited", json={"customer": "after", "amount": 3})
        assert sent.status_code == 202, sent.text

        async def is_applied() -> bool:
            answer = await client.get(f"{shop.url}/state/wallets/wallet/after")
            return answer.status_code == 200 and answer.json()["balance"] == 3

        await until(is_applied, "the event has its effect")
