"""The least that a FastAPI route can do: check events, send them as CloudEvents to Kafka with acks=all, answer 202."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import uvicorn
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field, TypeAdapter


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


class Envelope(BaseModel):
    """An event of a batch."""

    id: str
    source: str
    type: str
    data: WalletCredited


BATCH = TypeAdapter(list[Envelope])


@app.post("/events/wallet.credited", status_code=202)
async def publish(event: WalletCredited) -> dict[str, int]:
    """Send one event."""
    await (await _send(str(uuid.uuid4()), event))
    return {"accepted": 1}


@app.post("/events", status_code=202)
async def publish_all(request: Request) -> dict[str, int]:
    """Send the events of a batch. Its media type is not one that FastAPI reads by itself."""
    events = BATCH.validate_json(await request.body())
    await asyncio.gather(*[await _send(event.id, event.data) for event in events])
    return {"accepted": len(events)}


async def _send(event_id: str, event: WalletCredited) -> asyncio.Future[Any]:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", b"/shop/wallet.credited"),
        ("ce_type", b"wallet.credited"),
        ("ce_time", datetime.now(UTC).isoformat().encode()),
        ("content-type", b"application/json"),
    ]
    value, key = event.model_dump_json().encode(), event.customer.encode()
    sent: asyncio.Future[Any] = await app.state.producer.send("wallets", value, key, headers=headers)
    return sent


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
