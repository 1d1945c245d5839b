"""Money goes from one customer to another: two events that leave together, or not at all."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, PositiveInt

from headrace import Outbox, require
from shop.events import WalletCredited, WalletDebited

router = APIRouter(tags=["transfers"])


class Transfer(BaseModel):
    """An amount, from whom and to whom."""

    sender: Annotated[str, Field(alias="from", max_length=512)]
    receiver: Annotated[str, Field(alias="to", max_length=512)]
    amount: PositiveInt


@router.post("/transfers", status_code=202, dependencies=[Depends(require("publish"))])
async def transfer(order: Transfer, tx: Outbox) -> dict[str, list[str]]:
    """Debit the one wallet and credit the other."""
    debited = tx.emit(WalletDebited(customer=order.sender, amount=order.amount))
    credited = tx.emit(WalletCredited(customer=order.receiver, amount=order.amount))
    return {"ids": [debited, credited]}
