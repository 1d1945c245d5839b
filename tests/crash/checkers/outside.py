"""I8: calls to the outside are made for events that are applied alone, in order per key, with one key each.

The calls of a process are in order as long as it holds the claim. One that takes the claim again, of another process or
of itself, makes every call again whose end is not written, so these may come behind calls that were made before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from operator import attrgetter

from tests.crash.checkers.claims import PROCESS
from tests.crash.checkers.emitted import CLOCK_SECONDS
from tests.crash.checkers.violation import Violation
from tests.crash.cluster import NAME
from tests.crash.evidence import Call, Evidence
from tests.crash.history import ClaimChange


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
    if not evidence.is_put_back:  # the outside remembers what a lost future has called
        yield from _check_each_process(evidence)
        yield from _check_answers(evidence)
        yield from _check_commits(evidence)


def _check_each_process(evidence: Evidence) -> Iterator[Violation]:
    """In one tenure: no later call of a key before the one ahead of it has ended, and no answer asked for again."""
    claimed = _claimed(evidence, attrgetter("token"))
    order = {
        (key, number): at
        for key, told in evidence.streams.by_type["told"].numbers.items()
        for at, number in enumerate(told)
    }
    last: dict[tuple[int, str], Call] = {}
    for call in evidence.calls:
        before = last.get((call.writer, call.key))
        last[call.writer, call.key] = call
        if before is None:
            continue
        where = f"process {call.writer}: {call.what} {call.key}/{call.number} came behind"
        is_behind = order.get((call.key, call.number), 0) < order.get((call.key, before.number), 0)
        claims = claimed[call.writer, _partition(evidence, call)]
        if is_behind and not any(before.at - CLOCK_SECONDS <= at <= call.at + CLOCK_SECONDS for at in claims):
            yield Violation("I8", f"{where} a call for {before.number}, which is later")
        if call.number == before.number and call.what == "step" and before.what == "mail":
            yield Violation("I8", f"{where} the mail, though its answer is kept")


def _check_answers(evidence: Evidence) -> Iterator[Violation]:
    """No step is called whose answer another process had kept before this one took the claim: a mail follows it."""
    taken = _claimed(evidence, attrgetter("owner"))
    mailed: dict[tuple[str, int], float] = {}
    for call in evidence.calls:
        if call.what == "mail":
            mailed.setdefault((call.key, call.number), call.at)
            continue
        at = mailed.get((call.key, call.number), math.inf) + CLOCK_SECONDS
        if any(at < each < call.at for each in taken[call.writer, _partition(evidence, call)]):
            text = f"process {call.writer} called the step of {call.key}/{call.number}"
            yield Violation("I8", f"{text}, though its answer was kept before the process took the claim")


def _claimed(
    evidence: Evidence, mark: Callable[[ClaimChange], str | None]
) -> defaultdict[tuple[int, int], list[float]]:
    """Return when each process took the claim of each partition, in Unix seconds: it has another `mark` since then."""
    found: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    marks = dict[int, str | None]()
    for change in sorted(evidence.history.changes, key=attrgetter("life", "number")):
        if change.subscription != f"{NAME}.mails":
            continue
        is_new = marks.get(change.partition) != mark(change)
        marks[change.partition] = mark(change)
        if is_new and (owner := PROCESS.search(change.owner or "")) is not None:
            found[int(owner[1]), change.partition].append(evidence.history.began_at + change.at)
    return found


def _partition(evidence: Evidence, call: Call) -> int:
    return evidence.streams.places.get(("told", call.key, call.number), ("", -1, 0))[1]


def _check_commits(evidence: Evidence) -> Iterator[Violation]:
    for call in evidence.calls:
        if (position := evidence.streams.places.get(("told", call.key, call.number))) is not None:
            began_at = evidence.began("mails", position)
            if call.at < began_at - CLOCK_SECONDS:
                text = f"{began_at - call.at:.2f} s before the transaction of its event"
                yield Violation("I8", f"{call.what} {call.key}/{call.number} was called {text}")
