"""The least that a FastAPI route can do: check an event, send it as a CloudEvent to Kafka with acks=all, answer 202."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

import uvicorn
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI
from pydantic import BaseModel, Field


class WalletCredited(BaseModel):
    """Money came into a customer's wallet."""

    customer: str
    amount: Annotated[int, Field(gt=0)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the producer."""
    async with AIOKafkaProducer(bootstrap_servers=os.environ["KAFKA"], acks="all", linger_ms=0) as producer:
        app.state.producer = producer
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/events/wallet.credited", status_code=202)
async def publish(event: WalletCredited) -> dict[str, int]:
    """Send one event."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(uuid.uuid4()).encode()),
        ("ce_source", b"/shop/wallet.credited"),
        ("ce_type", b"wallet.credited"),
        ("ce_time", datetime.now(UTC).isoformat().encode()),
        ("content-type", b"application/json"),
    ]
    value, key = event.model_dump_json().encode(), event.customer.encode()
    await app.state.producer.send_and_wait("wallets", value, key, headers=headers)
    return {"accepted": 1}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
