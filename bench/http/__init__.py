"""What the HTTP door takes in: its peak, beside a bare FastAPI route that does the same, and far above its peak.

`client.py` sends, `door.py` measures one server, `bench/peers/bare_route.py` is the other side of the comparison.
"""
