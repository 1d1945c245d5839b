"""The places in the vans of each city."""

from __future__ import annotations

from pydantic import BaseModel

from headrace import State
from shipping.events import ReleaseVan, ReserveVan, VanAdded, VanRefused, VanReserved, events

vans = events.subscription("vans")


class Vans(BaseModel):
    """One city's places."""

    free: int = 0
    taken: list[str] = []
    """The shipments that have one."""


@vans.on(VanAdded)
def add(event: VanAdded, vans: State[Vans]) -> None:
    """Add places."""
    vans.free += event.places


@vans.on(ReserveVan)
def reserve(event: ReserveVan, vans: State[Vans]) -> VanReserved | VanRefused:
    """Give a place to a shipment, if there is one."""
    if vans.free == 0:
        return VanRefused(shipment=event.shipment, reason=f"no van in {event.city}")
    vans.free -= 1
    vans.taken.append(event.shipment)
    return VanReserved(shipment=event.shipment, city=event.city)


@vans.on(ReleaseVan)
def release(event: ReleaseVan, vans: State[Vans]) -> None:
    """Take the place back."""
    vans.taken.remove(event.shipment)
    vans.free += 1
