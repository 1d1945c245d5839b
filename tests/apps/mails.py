"""A service whose effect writes a line into a file, as if it sent a mail: in a step, and then once more behind it."""

from __future__ import annotations

import asyncio
import json
import os

from fastapi import FastAPI

from headrace import Event, Headrace, Step

events = Headrace("mails")
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)


class Confirmed(Event, type="confirmed", topic="confirmed", key="customer"):
    """A customer is to be told something."""

    customer: str
    number: int


class Mailed(Event, type="mailed", topic="mailed", key="customer"):
    """The customer was told."""

    customer: str
    number: int


events.declare(Mailed)


@events.subscription("mails").effect(Confirmed, attempts=100)
async def mail(event: Confirmed, step: Step) -> Mailed:
    """Charge in a step, and mail."""
    await step("charge", write, "charge", event.customer, event.number, step.key)
    await write("mail", event.customer, event.number, step.key)
    return Mailed(customer=event.customer, number=event.number)


async def write(what: str, customer: str, number: int, key: str) -> None:
    """Add a line to the file, in one piece, and take a moment."""
    line = json.dumps([what, customer, number, key]) + "\n"
    file = os.open(os.environ["APP_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
    await asyncio.sleep(0.01)
