"""I5: the ranges of the ledger are contiguous and end at the claim. I12: its counts are those of the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.crash.checkers.violation import Violation
from tests.crash.evidence import Evidence, LedgerRow, Place

BATCH, RETRY = 0, 1


def check_ledger(evidence: Evidence) -> Iterator[Violation]:
    """I5, of each partition of each subscription."""
    last: dict[Place, LedgerRow] = {}
    for row in evidence.ledger:
        before = last.get(row.place)
        last[row.place] = row
        if before is None:
            continue
        if row.sequence != before.sequence + 1:
            yield Violation("I5", f"{row.place}: row {row.sequence} follows row {before.sequence}")
        elif row.first_offset != before.next_offset:
            yield Violation("I5", f"{row.place}: {row.first_offset} follows {before.next_offset}")
    for place, next_offset in evidence.claims.items():
        if place in last and last[place].next_offset != next_offset:
            yield Violation("I5", f"{place}: the claim is at {next_offset}, the ledger at {last[place].next_offset}")


def check_counts(evidence: Evidence) -> Iterator[Violation]:
    """I12: what was fetched was applied, skipped, parked or given up on; and all that was parked has left its lane."""
    fetched, entered, left, dead = Counter[Place](), Counter[str](), Counter[str](), 0
    for row in evidence.ledger:
        dead += row.dead
        if row.kind == BATCH:
            fetched[row.place] += row.applied + row.skipped + row.parked + row.dead
            entered[row.place[0]] += row.parked
        elif row.kind == RETRY:
            left[row.place[0]] += row.applied + row.skipped + row.dead
    for place in evidence.claims:
        there = evidence.streams.records[place[1:]]
        if fetched[place] != there:
            yield Violation("I12", f"{place}: the log has {there} records, and {fetched[place]} are accounted for")
    for subscription in entered | left:
        if entered[subscription] != left[subscription]:
            yield Violation(
                "I12", f"{subscription}: {entered[subscription]} events were parked, and {left[subscription]} left"
            )
    if dead != evidence.dead.total():
        yield Violation("I12", f"the ledger counts {dead} dead letters, and {evidence.dead.total()} are there")
