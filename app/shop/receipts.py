"""Writes to customers, behind the commit: an effect whose mail is not sent twice, and a task that a route leaves."""

from __future__ import annotations

import structlog

from headrace import Step
from shop.events import OrderConfirmed
from shop.platform import events

logger = structlog.get_logger("shop.mail")

receipts = events.subscription("receipts")


async def send_mail(about: str, text: str, *, idempotency_key: str) -> str:
    """Stand in for a provider of mail, which answers with the number of the mail; it writes to the log."""
    logger.info("mail", about=about, text=text, idempotency_key=idempotency_key)
    return idempotency_key[:8]


@receipts.effect(OrderConfirmed, timeout_seconds=10)
async def send_receipt(event: OrderConfirmed, step: Step) -> None:
    """Send the receipt of an order."""
    await step("mail", send_mail, event.order, "your order is on its way", idempotency_key=step.key)


@events.task(key="card", timeout_seconds=10)
async def mail_gift_card(card: str, amount: int, step: Step) -> None:
    """Send a gift card to whoever has bought it."""
    await send_mail(card, f"a gift card of {amount}", idempotency_key=step.key)
