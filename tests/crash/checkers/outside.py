"""I8: calls to the outside are made for events that are applied alone, in order per key, with one key each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.crash.checkers.violation import Violation
from tests.crash.evidence import Evidence


def check_calls(evidence: Evidence) -> Iterator[Violation]:
    """Compare the calls with the events that ask for them."""
    told = evidence.streams.by_type["told"].numbers
    first: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    keys: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for call in evidence.calls:
        keys[call.key, call.number].add(call.idempotency_key)
        if call.number not in first[call.what, call.key]:
            first[call.what, call.key].append(call.number)
    for (key, number), used in keys.items():
        if len(used) > 1:
            yield Violation("I8", f"the calls for {key}/{number} had {len(used)} idempotency keys")
    for what in ("step", "mail"):
        for key in told.keys() | {key for kind, key in first if kind == what}:
            made, wanted = first.get((what, key), []), list(told.get(key, []))
            if made != wanted:
                yield Violation("I8", f"{what} {key}: called for {made[:70]}, and to be called for {wanted[:70]}")
