"""Payments, which somebody else takes: a provider that is asked over HTTP, and is away now and then.

They are effects: called behind the commit, many customers at once. A process that dies leaves its question to the next
one, which asks again. So each question carries a key that is the same for its event, by which the provider knows that
it has answered it before; providers call this an idempotency key.
"""

from __future__ import annotations

from typing import Annotated, Protocol

from fastapi import Depends

from headrace import Step
from shipping.events import GivePaymentBack, PaymentRefused, PaymentTaken, TakePayment, events


class ProviderAwayError(Exception):
    """The provider does not answer: an outage, and no payment's own fault."""


class CardRefusedError(Exception):
    """The provider does not take the card."""


class Provider(Protocol):
    """What takes payments."""

    async def charge(self, customer: str, cents: int, *, idempotency_key: str) -> str: ...

    async def refund(self, receipt: str, *, idempotency_key: str) -> None: ...


def get_provider() -> Provider:
    """Return the provider; the application that is deployed overrides this with one that has an address and a key."""
    raise ProviderAwayError("no provider is configured: app.dependency_overrides[get_provider] = ...")


Payments = Annotated[Provider, Depends(get_provider)]

payments = events.subscription("payments", outage=ProviderAwayError, timeout_seconds=10)


@payments.effect(TakePayment)
async def take(event: TakePayment, step: Step, provider: Payments) -> PaymentTaken | PaymentRefused:
    """Take a payment."""
    try:
        receipt = await provider.charge(event.customer, event.cents, idempotency_key=step.key)
    except CardRefusedError as error:
        return PaymentRefused(shipment=event.shipment, reason=str(error))
    return PaymentTaken(shipment=event.shipment, receipt=receipt)


@payments.effect(GivePaymentBack)
async def give_back(event: GivePaymentBack, step: Step, provider: Payments) -> None:
    """Give a payment back."""
    await provider.refund(event.receipt, idempotency_key=step.key)
