"""The service that `SERVICE` names, without what makes it exactly once: no identities, no dedupe window, no ledger.

It runs without the extension in C, whose identities cannot be left out.

The engine is changed in this process alone; the product has no such switch. A crash would lose emitted events, and a
copy of an event is applied again. The claim moves on in the batch's transaction, as ever.
"""

from __future__ import annotations

from typing import Any

from bench.peers import headrace_in_python
from headrace.engine import batch, columns, commit, decode
from headrace.engine.effects import Effects
from headrace.engine.lanes import Lanes
from headrace.engine.settle import settle
from headrace.ledger.rows import IDENTITY_BYTES
from headrace.ledger.window import DedupeWindow


def _settle_without_identities(effects: Effects, lanes: Lanes, *, is_probe: bool = False) -> None:
    settle(effects, lanes, is_probe=is_probe)
    if any(len(item.identity) == IDENTITY_BYTES for item in effects.seen[:1]):
        raise SystemExit("bench.peers.headrace_untaxed: the engine makes identities in another place by now")
    effects.seen.clear()


def _replace(owner: Any, name: str, function: object) -> None:
    getattr(owner, name)  # so that a name that has gone is an error, and not a measure of something else
    setattr(owner, name, function)


for module in (columns, decode):
    _replace(module, "identity", lambda source, kind, event_id: event_id.encode())
    _replace(module, "crc32", bool)
_replace(batch, "settle", _settle_without_identities)
_replace(commit, "ledger_row", lambda *_: None)  # so the claim moves alone
_replace(DedupeWindow, "add", lambda *_: None)

app = headrace_in_python.app
