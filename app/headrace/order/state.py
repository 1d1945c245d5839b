"""The state that keeps the order of one key."""

from __future__ import annotations

import msgspec

ORDER_STATE = "headraceorder"
"""What the state is called, in every subscription that has an order."""


class HeadraceOrder(msgspec.Struct):
    """The last place that was applied, by type for `Latest`, under "" for `InSequence`."""

    last: dict[str, int] = {}
