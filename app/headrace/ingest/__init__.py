"""1. HTTP to event: the routes that take events in.

```
POST /events, /events/{type} ─▶ accept.py: one request as a list of steps
    limiter.py (a place, else 429) ─▶ rates.py (the caller's limit, else 429) ─▶ http/body.py (limit)
    ─▶ parsing.py (envelope)
    ─▶ checking.py (type, schema, key; all or nothing; plain batches by columns.py)
    ─▶ publishing.py (the log has it) ─▶ 202
```
A 202 is answered only after `Log.publish` returned, so what was accepted outlives any crash. A refused request leaves
nothing behind: every event of a batch is checked before the first is published. If the log does not answer in time, the
outcome is unknown; the answer is 503, and sending the same ids again is safe, since they are recognised.

A publish is never cancelled, neither by the timeout nor by a caller who leaves: it continues, and its request keeps its
place until it ends, so that a log that hangs fills `HEADRACE_INGEST_MAX_IN_FLIGHT`, or `..._BYTES`, and not the memory.
"""

from headrace.ingest.routes import build_router

__all__ = ["build_router"]
