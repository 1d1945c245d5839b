"""Platform and PostgreSQL are killed together, again and again, under load: what was answered 202 takes effect once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.support.service import Service
from tests.support.waiting import until
from tests.support.wallets import Expected
from tests.support.web import http_client

KILLS = 10
CLIENTS = 6
CUSTOMERS_EACH = 4
EVENTS_PER_LIFE = 300
SEED = 4


@dataclass
class Load:
    """What the clients sent: each sends its next events only when the ones before were answered with 202."""

    url: str
    expected: Expected = field(default_factory=Expected)
    lowest: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    accepted: int = 0
    repeated: int = 0
    is_over: bool = False

    async def run(self, number: int) -> None:
        """Be one client, whose customers are its own, so that their order is known."""
        chance = random.Random(SEED * 1_000 + number)
        sent = 0
        async with http_client(base_url=self.url, timeout=5) as client:
            while not self.is_over:
                batch = []
                for _ in range(chance.randint(1, 8)):
                    sent += 1
                    customer = f"customer-{number}-{chance.randrange(CUSTOMERS_EACH)}"
                    amount, is_credit = chance.randint(1, 100), chance.random() < 0.5
                    batch.append(_event(f"{number}-{sent}", customer, amount, is_credit=is_credit))
                    self.expected.apply(customer, amount, is_credit=is_credit)
                    self.lowest[customer] = min(self.lowest[customer], self.expected.wallets[customer].balance)
                await until(partial(self._is_accepted, client, batch), "a batch is accepted", 60)
                self.accepted += len(batch)

    async def _is_accepted(self, client: httpx.AsyncClient, batch: list[dict[str, object]]) -> bool:
        is_accepted = await _post(client, batch)
        self.repeated += 0 if is_accepted else len(batch)
        return is_accepted


@pytest.mark.timeout(150)
async def test_accepted_events_are_applied_once_through_ten_kills(tmp_path: Path) -> None:
    """Platform and PostgreSQL are killed together ten times: every event that was answered with 202 is applied once."""
    settings = {
        "HEADRACE_LOG": "embedded",
        "HEADRACE_PARTITIONS": "3",
        "APP_HANDLERS": "sync",
    }
    service = Service(tmp_path, settings, app="tests.apps.wallets:app")
    load, chance = Load(service.url), random.Random(SEED)
    clients: list[asyncio.Task[None]] = []
    try:
        await service.start()
        clients = [asyncio.create_task(load.run(number)) for number in range(CLIENTS)]
        for life in range(1, KILLS + 1):
            before = load.accepted
            wanted = before + chance.randint(EVENTS_PER_LIFE // 3, EVENTS_PER_LIFE)
            await until(lambda wanted=wanted: load.accepted >= wanted, f"events are accepted in life {life}")  # type: ignore[misc]
            await _kill_everything(service, tmp_path)
            service.settings["APP_HANDLERS"] = "async" if life % 2 else "sync"
            await service.start(ready=False)
        await until(service.is_ready, "the service is ready")
        load.is_over = True
        await asyncio.gather(*clients)
        await _compare(service, load)
        assert load.accepted == load.expected.valid
        assert load.repeated > 0, "no request was hit by a kill: the test did not test it"
        assert await service.leave() == 0
        assert "Traceback" not in service.output
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await service.stop()


async def _compare(service: Service, load: Load) -> None:
    async with http_client(base_url=service.url, timeout=10) as client:
        await until(lambda: _is_settled(client), "nothing waits", 60)
        wallets = {customer: await _state(client, "wallets/wallet", customer) for customer in load.expected.wallets}
        assert wallets == {customer: asdict(wallet) for customer, wallet in load.expected.wallets.items()}
        assert sum(wallet["applied"] for wallet in wallets.values() if wallet) == load.accepted
        alerts = {customer: await _state(client, "alerts/alert", customer) for customer in load.expected.wallets}
        assert alerts == {
            customer: {"count": load.expected.overdrawn[customer], "lowest": load.lowest[customer]}
            if load.expected.overdrawn[customer]
            else None
            for customer in load.expected.wallets
        }
        assert sum(load.expected.overdrawn.values()) > 100
        assert (await client.get("/dead-letters")).json()["dead_letters"] == []
        for subscription in ("wallets", "alerts"):
            audit = (await client.post(f"/subscriptions/{subscription}/audit", timeout=30)).json()
            assert audit["clean"], audit["findings"]


async def _is_settled(client: httpx.AsyncClient) -> bool:
    """True if no event waits or is parked, and nothing that was emitted is still on its way.

    Kills that hit one offset three times look like the event's fault, so it is parked: it is asked for at once.
    """
    answer = (await client.get("/subscriptions")).json()["subscriptions"]
    metrics = (await client.get("/metrics")).text
    pending = [line for line in metrics.splitlines() if line.startswith("headrace_emits_pending{")]
    retried = [await client.post(f"/subscriptions/{part['name']}/lanes/retry") for part in answer]
    return (
        all(part["lag"] == 0 for part in answer)
        and all(line.endswith(" 0.0") for line in pending)
        and not any(reply.raise_for_status().json()["lanes"] for reply in retried)
    )


async def _state(client: httpx.AsyncClient, state: str, key: str) -> dict[str, int] | None:
    answer = await client.get(f"/state/{state}/{key}")
    if answer.status_code == 404:
        return None
    found: dict[str, int] = answer.raise_for_status().json()
    return found


async def _post(client: httpx.AsyncClient, batch: list[dict[str, object]]) -> bool:
    try:
        answer = await client.post(
            "/events", json=batch, headers={"content-type": "application/cloudevents-batch+json"}
        )
    except httpx.TransportError:
        return False
    assert answer.status_code in (202, 503), answer.text
    return answer.status_code == 202


def _event(event_id: str, customer: str, amount: int, *, is_credit: bool) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "/load",
        "type": "wallet.credited" if is_credit else "wallet.debited",
        "data": {"customer": customer, "amount": amount},
    }


async def _kill_everything(service: Service, folder: Path) -> None:
    """End the platform and every process of its PostgreSQL with -9, all before any of them can tell another."""
    postmaster = int((folder / "data/postgres/cluster/postmaster.pid").read_text().split("\n", 1)[0])
    for pid in (postmaster, *_children(postmaster)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await service.kill()


def _children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []
