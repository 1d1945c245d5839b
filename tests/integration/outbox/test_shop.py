"""The shop's transfers: both wallets change, or none."""

from __future__ import annotations

import pytest

from headrace.log.memory import MemoryLog
from shop import service, transfers
from shop.platform import events
from tests.support.platform import running, settings_for, states
from tests.support.routes import application, caller
from tests.support.waiting import until


async def test_a_transfer_debits_one_wallet_and_credits_the_other(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_settings", settings_for(database_url))
    app = application(events)
    app.include_router(transfers.router)
    assert service.wallets.wallets.name in events.registry.subscriptions
    async with running(events, MemoryLog()) as runtime, caller(app) as client:
        answer = await client.post("/transfers", json={"from": "ada", "to": "bob", "amount": 30})
        assert (answer.status_code, len(answer.json()["ids"])) == (202, 2)
        too_long = {"from": "ada", "to": "x" * 513, "amount": 30}
        assert (await client.post("/transfers", json=too_long)).status_code == 422

        async def has_moved() -> bool:
            wallets = await states(runtime, "wallets", "wallet")
            return {name: wallet["balance"] for name, wallet in wallets.items()} == {"ada": -30, "bob": 30}

        await until(has_moved, "the money has moved")
