"""The wallet events as FastStream hands them to a subscriber: a decoder of CloudEvents, and a model that checks."""

from __future__ import annotations

import json
from typing import Any, Literal

from faststream.kafka import KafkaMessage
from pydantic import BaseModel, PositiveInt


class WalletEvent(BaseModel):
    """A credit or a debit."""

    id: str
    type: Literal["wallet.credited", "wallet.debited"]
    customer: str
    amount: PositiveInt

    @property
    def credit(self) -> int:
        """What the event adds to the balance."""
        return self.amount if self.type == "wallet.credited" else -self.amount


async def decode(message: KafkaMessage) -> dict[str, Any]:
    """Return the members of one event."""
    return members(message.body, message.headers)


async def decode_batch(message: KafkaMessage) -> list[dict[str, Any]]:
    """Return the members of each event of a batch."""
    return [members(body, headers) for body, headers in zip(message.body, message.batch_headers, strict=True)]


def members(body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """Return id, type and data of an event, in binary or in structured mode."""
    value = json.loads(body)
    if "ce_type" in headers:
        return {"id": headers["ce_id"], "type": headers["ce_type"], **value}
    return {"id": value["id"], "type": value["type"], **value["data"]}
