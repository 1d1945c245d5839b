"""The example service: wallets that are credited and debited, and an alert when one is overdrawn.

`headrace run shop.service:app` serves it. `events.py` declares what happens, `wallets.py`, `alerts.py` and
`stock.py` what follows; `checkout.py` takes an order through stock and wallet, `orders.py` is what a customer sees of
it, and `order_list.py` what the shop sees of all. `transfers.py` is a route of the shop's own, and `gift_cards.py`
keeps what is on a gift card as a stream of events.
"""
