"""Builds a projection's table again beside the one in use, and lets it take its place in one transaction.

```
new table ─▶ apply the log up to the claims ─▶ indexes ─▶ catch up ─▶ ┌ writers wait: the rest, up to the claims' own ┐
             (the service goes on meanwhile)                          └ rename, drop the old one, commit ──────────────┘
```
The claims of the running service stay the truth about progress. When the new table takes over it has exactly what they
have behind them, so no event is missing and none is applied twice; readers see the old rows, then the new ones. A crash
before the last commit leaves the old table in use, and the next rebuild begins anew.

`rebuild.py` leads; `replay.py` applies the log (`reading.py`), `stored.py` the event store.

What the subscription gave up on stays out, and a replayed letter counts as it was edited, at its place in the log: when
it was applied among the later events of its key is not kept. While keys wait in lanes, or
if letters are decided on meanwhile, the rebuild refuses, since then the log does not tell what was applied.
"""
