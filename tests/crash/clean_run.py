"""The evidence of a short run that violates nothing, for tests of the checkers to change."""

from __future__ import annotations

from array import array
from collections import Counter

from tests.crash.checkers import CHECKERS
from tests.crash.cluster import NAME
from tests.crash.evidence import STATES, Call, Evidence, LedgerRow
from tests.crash.history import ClaimChange, History, Posted, Sample
from tests.crash.streams import Streams

LISTS, ECHO = (f"{NAME}.lists", NAME, 0), (f"{NAME}.echoes", f"{NAME}-echoes", 0)
OWNER, PID = "host/7/1", 7


def clean() -> Evidence:
    """Five records: three of `a`, one that is given up on, and one that is no event.

    The second event of `a` emits, tells and orders; a route has booked twice.
    """
    streams, history = Streams(), History()
    add(streams, "noted", "a", [0, 1, 2])
    streams.by_type["noted"].there["a"] |= 8
    for type_ in ("echoed", "reminded", "told", "mailed", "windowed"):
        add(streams, type_, "a", [1])
    add(streams, "booked", "account", [1, 2])
    for what in ("echoes", "reminds", "tells", "good"):
        streams.asked[what].take("a", 1)
    streams.rejected, streams.malformed = {(NAME, 0, 3)}, {(NAME, 0, 4)}
    streams.records.update({(NAME, 0): 5, (f"{NAME}-echoes", 0): 1})
    history.sided["s"] = [0, 1]
    history.sent.by_key["a"], history.sent.acknowledged, history.sent.booked = 4, 4, 2
    add(streams, "noted", "p", [0, 1])
    history.sent.posted["p"] = Posted(tried=3, accepted=2)
    history.changes = [
        ClaimChange(1, 1.0, *LISTS, OWNER, 1, "t", 0, 0, PID, 0),
        ClaimChange(2, 2.0, *LISTS, OWNER, 1, "t", 5, 1, PID, 0),
    ]
    history.samples = [Sample(1.0, 4, 5, 3, 12, 90_000_000)]
    ledger = [
        LedgerRow(LISTS, 1, 0, 0, 3, 2, 0, 1, 0),
        LedgerRow(LISTS, 2, 1, 3, 3, 1, 0, 0, 0),
        LedgerRow(LISTS, 3, 0, 3, 5, 0, 0, 0, 2),
        LedgerRow(ECHO, 1, 0, 0, 1, 1, 0, 0, 0),
    ]
    return Evidence(
        history,
        streams,
        {type_: {key: array("I", each) for key, each in streams.by_type[type_].numbers.items()} for type_ in STATES},
        {"s": array("I", [0, 1])},
        Counter({(NAME, 0, 3): 1, (NAME, 0, 4): 1}),
        ledger,
        {LISTS: 5, ECHO: 1},
        [Call("step", "a", 1, "x"), Call("mail", "a", 1, "x"), Call("mail", "a", 1, "x")],
        {"a/1": "completed"},
        {"a/1": ["reserve", "pack", "pay"]},
        {"account": [1, 2]},
        [],
        {"a": array("I", [1])},
    )


def add(streams: Streams, type_: str, key: str, numbers: list[int]) -> None:
    """Let the streams have these events of a key."""
    for number in numbers:
        streams.by_type[type_].numbers[key].append(number)
        streams.by_type[type_].there.take(key, number)


def found(evidence: Evidence) -> set[str]:
    """Return the invariants that the evidence violates."""
    return {violation.invariant for check in CHECKERS for violation in check(evidence)}
