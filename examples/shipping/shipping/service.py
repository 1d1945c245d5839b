"""The application: `headrace run shipping.service:app`."""

from fastapi import FastAPI

from shipping import payments, saga, vans
from shipping.events import ShipmentConfirmed, ShipmentRejected, events

__all__ = ["app", "payments", "saga", "vans"]

events.declare(ShipmentConfirmed, ShipmentRejected)

app = FastAPI(title="shipping", lifespan=events.lifespan)
app.include_router(events.router)
