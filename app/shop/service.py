"""The shop as an application: `headrace run shop.service:app`."""

from fastapi import FastAPI

from shop import alerts, checkout, gift_cards, order_list, orders, receipts, stock, transfers, wallets
from shop.platform import events

__all__ = ["alerts", "app", "checkout", "orders", "receipts", "stock", "wallets"]

app = FastAPI(title="shop", lifespan=events.lifespan)
app.include_router(events.router)
app.include_router(transfers.router)
app.include_router(gift_cards.router)
app.include_router(order_list.order_list.router("/orders"))
