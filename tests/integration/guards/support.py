"""What the tests of outages share: events that come in over HTTP, and the answer while they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from headrace.settings import DatabaseSettings, KafkaSettings, Settings
from tests.support.waiting import until


def impatient(settings: Settings, *, pool_size: int = 10, **kafka: Any) -> Settings:
    """Return the settings with limits of a few seconds, for servers that say nothing at all."""
    database = DatabaseSettings(
        pool_size=pool_size, connect_timeout_seconds=3, statement_timeout_seconds=3, idle_in_transaction_seconds=3
    )
    waits = {"session_timeout_seconds": 6, "heartbeat_seconds": 0.2, "request_timeout_seconds": 2}
    return settings.model_copy(update={"database_options": database, "kafka": KafkaSettings(**(waits | kafka))})


async def accepted(client: httpx.AsyncClient, page: str, number: int) -> bool:
    """Publish one event of a notebook. Returns True for 202; anything but 202 and a 503 with Retry-After fails."""
    answer = await client.post(
        "/events/noted", json={"page": page, "number": number}, headers={"Idempotency-Key": f"{page}-{number}"}
    )
    if answer.status_code != 202:
        assert_unavailable(answer)
    return answer.status_code == 202


async def publish_all(client: httpx.AsyncClient, pages: Sequence[str], number: int) -> None:
    """Publish one event of each page, again and again under its id until it is accepted."""
    for page in pages:
        await until(lambda page=page: accepted(client, page, number), f"{page}-{number} is accepted", 60)  # type: ignore[misc]


def assert_unavailable(answer: httpx.Response) -> None:
    """A 503 in one sentence that says when to come again."""
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/problem+json"
    assert "\n" not in answer.json()["detail"]
