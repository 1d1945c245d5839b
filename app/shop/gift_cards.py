"""Gift cards: what is on one follows from its events, and no part of it is spent twice."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, Field, PositiveInt

from headrace import Aggregate, Outbox, applies, require
from shop.events import GiftCardIssued, GiftCardRedeemed, WalletCredited
from shop.platform import events
from shop.receipts import mail_gift_card

router = APIRouter(prefix="/gift-cards", tags=["gift cards"])


class Worth(BaseModel):
    """What is on a gift card."""

    issued: int = 0
    left: int = 0


class GiftCard(Aggregate[Worth], snapshot_every=100):
    """A gift card, by its code."""

    def issue(self, amount: int) -> None:
        """Sell the card, once."""
        if self.version > 0:
            raise HTTPException(409, f"the gift card {self.key!r} is sold already")
        self.emit(GiftCardIssued(card=self.key, amount=amount))

    def redeem(self, customer: str, amount: int) -> None:
        """Take a part of it."""
        if amount > self.state.left:
            raise HTTPException(409, f"the gift card {self.key!r} has {self.state.left} left")
        self.emit(GiftCardRedeemed(card=self.key, customer=customer, amount=amount))

    @applies(GiftCardIssued)
    def issued(self, event: GiftCardIssued) -> None:
        """The whole amount is there."""
        self.state.issued = self.state.left = event.amount

    @applies(GiftCardRedeemed)
    def redeemed(self, event: GiftCardRedeemed) -> None:
        """So much is gone."""
        self.state.left -= event.amount


events.declare(GiftCard)


class Redemption(BaseModel):
    """An amount, and whose wallet it goes to."""

    customer: Annotated[str, Field(min_length=1, max_length=512)]
    amount: PositiveInt


@router.post("/{card}", status_code=201, dependencies=[Depends(require("publish"))])
async def issue(card: str, amount: Annotated[int, Query(ge=1)], tx: Outbox) -> Worth:
    """Sell a card, and leave the mail about it for later: both, or neither."""
    sold = await events.store(tx).update(GiftCard, card, lambda card: card.issue(amount))
    tx.emit(mail_gift_card.event(card, amount))
    return sold.state


@router.post("/{card}/redemptions", status_code=201, dependencies=[Depends(require("publish"))])
async def redeem(card: str, wanted: Redemption, tx: Outbox) -> Worth:
    """Take a part of the card and put it into a wallet: both, or neither."""
    used = await events.store(tx).update(GiftCard, card, lambda card: card.redeem(wanted.customer, wanted.amount))
    tx.emit(WalletCredited(customer=wanted.customer, amount=wanted.amount))
    return used.state


@router.get("/{card}", dependencies=[Depends(require("read"))])
async def read(card: str, version: Annotated[int | None, Query(ge=0)] = None) -> Worth:
    """Tell what is on a card, or was at a version."""
    found = await events.store().load(GiftCard, card, version=version)
    return found.state
