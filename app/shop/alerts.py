"""How often a customer's wallet was overdrawn, and by how much at worst."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from headrace import States, keep
from shop.events import WalletOverdrawn
from shop.platform import events

alerts = events.subscription("alerts")


@keep(ttl=timedelta(days=90))
class Alert(BaseModel):
    """One customer's alerts; who is not overdrawn for three months begins anew."""

    count: int = 0
    lowest: int = 0


@alerts.on(WalletOverdrawn)
def note(overdrawn: list[WalletOverdrawn], alerts: States[Alert]) -> None:
    """Count the alerts: they come in bursts, and a list of them costs about what one does."""
    for event in overdrawn:
        alert = alerts.of(event)
        alert.count += 1
        alert.lowest = min(alert.lowest, event.balance)
