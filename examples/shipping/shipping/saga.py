"""A shipment as a whole: a van within a minute, the payment within a quarter of an hour, or neither."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from shipping.events import (
    GivePaymentBack,
    PaymentRefused,
    PaymentTaken,
    ReleaseVan,
    ReserveVan,
    ShipmentBooked,
    ShipmentConfirmed,
    ShipmentRejected,
    TakePayment,
    VanRefused,
    VanReserved,
    events,
)


class Shipment(BaseModel):
    """What a saga knows of its parcel."""

    shipment: str = ""
    customer: str = ""
    city: str = ""
    cents: int = 0


shipping = events.saga("shipping", Shipment)


@shipping.start(ShipmentBooked)
def begin(event: ShipmentBooked) -> Shipment:
    """Begin with what was booked."""
    return Shipment.model_validate(event.model_dump())


@shipping.step(done=VanReserved, failed=VanRefused, within=timedelta(minutes=1))
def reserve_van(shipment: Shipment) -> ReserveVan:
    """Find a place."""
    return ReserveVan(city=shipment.city, shipment=shipment.shipment)


@reserve_van.undo
def release_van(shipment: Shipment, reserved: VanReserved) -> ReleaseVan:
    """Give the place back."""
    return ReleaseVan(city=reserved.city, shipment=shipment.shipment)


@shipping.step(done=PaymentTaken, failed=PaymentRefused, within=timedelta(minutes=15))
def take_payment(shipment: Shipment) -> TakePayment:
    """Let the customer pay."""
    return TakePayment(shipment=shipment.shipment, customer=shipment.customer, cents=shipment.cents)


@take_payment.undo
def give_back(shipment: Shipment, taken: PaymentTaken) -> GivePaymentBack:
    """Give the money back; a payment that comes too late as well."""
    return GivePaymentBack(shipment=shipment.shipment, receipt=taken.receipt)


@shipping.completed
def confirm(shipment: Shipment) -> ShipmentConfirmed:
    """Tell that the parcel is on its way."""
    return ShipmentConfirmed(shipment=shipment.shipment)


@shipping.compensated
def reject(shipment: Shipment, reason: str) -> ShipmentRejected:
    """Tell why it is not."""
    return ShipmentRejected(shipment=shipment.shipment, reason=reason)
