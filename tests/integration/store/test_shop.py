"""The shop's gift cards: what is on a card follows from its events, and no part of it is spent twice."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from fastapi import HTTPException

from headrace.log.memory import MemoryLog
from shop import gift_cards, service
from shop.events import GiftCardIssued, GiftCardRedeemed
from shop.gift_cards import GiftCard, Worth
from shop.platform import events
from tests.support.platform import running, settings_for, states
from tests.support.routes import application, caller
from tests.support.waiting import until


def test_card_is_sold_once_and_holds_no_more_than_it_is_worth() -> None:
    """An aggregate is a plain object, so its rules are tested without anything else."""
    card = GiftCard("xmas-7")
    card.issue(50)
    card.redeem("ada", 20)
    assert card.emitted == [
        GiftCardIssued(card="xmas-7", amount=50),
        GiftCardRedeemed(card="xmas-7", customer="ada", amount=20),
    ]
    assert card.state == Worth(issued=50, left=30)
    with pytest.raises(HTTPException, match="has 30 left"):
        card.redeem("ada", 31)


async def test_ten_buyers_at_once_spend_a_card_to_its_end(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_settings", settings_for(database_url))
    app = application(events)
    app.include_router(gift_cards.router)
    assert service.wallets.wallets.name in events.registry.subscriptions
    async with running(events, MemoryLog()) as runtime, caller(app) as client:
        assert (await client.post("/gift-cards/xmas-7?amount=50")).json() == {"issued": 50, "left": 50}
        assert (await client.post("/gift-cards/xmas-7?amount=50")).status_code == 409

        wanted = {"customer": "ada", "amount": 8}
        answers = await asyncio.gather(*(client.post("/gift-cards/xmas-7/redemptions", json=wanted) for _ in range(10)))
        assert Counter(answer.status_code for answer in answers) == {201: 6, 409: 4}

        async def is_credited() -> bool:
            found = await states(runtime, "wallets", "wallet")
            return "ada" in found and (found["ada"]["balance"], found["ada"]["credits"]) == (48, 6)

        await until(is_credited, "the wallet has what the card had")
        assert (await client.get("/gift-cards/xmas-7")).json() == {"issued": 50, "left": 2}
        assert (await client.get("/gift-cards/xmas-7?version=3")).json() == {"issued": 50, "left": 34}
