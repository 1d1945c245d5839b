"""What happens when a parcel is shipped, and the platform it happens on."""

from __future__ import annotations

from pydantic import PositiveInt

from headrace import Event, Headrace

events = Headrace("shipping")


class ShipmentBooked(Event, type="shipment.booked", topic="shipments", key="shipment"):
    """A customer wants a parcel shipped."""

    shipment: str
    customer: str
    city: str
    cents: PositiveInt


class VanAdded(Event, type="van.added", topic="vans", key="city"):
    """A city has room for so many more parcels."""

    city: str
    places: PositiveInt


class ReserveVan(Event, type="van.reserve", topic="vans", key="city", internal=True):
    """A place in a van is wanted."""

    city: str
    shipment: str


class ReleaseVan(Event, type="van.release", topic="vans", key="city", internal=True):
    """A place is free again."""

    city: str
    shipment: str


class VanReserved(Event, type="van.reserved", topic="shipments", key="shipment", internal=True):
    """The parcel has a place."""

    shipment: str
    city: str


class VanRefused(Event, type="van.refused", topic="shipments", key="shipment", internal=True):
    """All vans of the city are full."""

    shipment: str
    reason: str


class TakePayment(Event, type="payment.take", topic="payments", key="shipment", internal=True):
    """The customer is to pay."""

    shipment: str
    customer: str
    cents: int


class GivePaymentBack(Event, type="payment.give_back", topic="payments", key="shipment", internal=True):
    """The customer is to get the money back."""

    shipment: str
    receipt: str


class PaymentTaken(Event, type="payment.taken", topic="shipments", key="shipment", internal=True):
    """The customer has paid."""

    shipment: str
    receipt: str


class PaymentRefused(Event, type="payment.refused", topic="shipments", key="shipment", internal=True):
    """The customer's card was refused."""

    shipment: str
    reason: str


class ShipmentConfirmed(Event, type="shipment.confirmed", topic="shipments", key="shipment", internal=True):
    """The parcel is on its way."""

    shipment: str


class ShipmentRejected(Event, type="shipment.rejected", topic="shipments", key="shipment", internal=True):
    """It has come to nothing: no place is taken, and no money."""

    shipment: str
    reason: str
