"""The example service: wallets that are credited and debited, and an alert when one is overdrawn.

`headrace run shop.service:app` serves it. `events.py` declares what happens, `wallets.py` and `alerts.py` what follows;
`transfers.py` is a route of the shop's own.
"""
