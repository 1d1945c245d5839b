"""I6: a claim never goes back. I7: nobody but its owner moves it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from operator import attrgetter

from tests.crash.checkers.violation import Violation
from tests.crash.cluster import SIDE
from tests.crash.evidence import Evidence
from tests.crash.history import ClaimChange

PROCESS = re.compile(r"/(\d+)/")
"""In the name of an owner."""


def check_claims(evidence: Evidence) -> Iterator[Violation]:
    """Follow each claim through all of its changes, in each life of the database."""
    last: dict[tuple[tuple[str, str, int], int], ClaimChange] = {}
    for change in sorted(evidence.history.changes, key=attrgetter("life", "number")):
        if change.topic == SIDE:
            continue  # a person moves these
        where = (change.place, change.life)
        before = last.get(where)
        last[where] = change
        if before is not None:
            yield from compare(before, change)


def compare(before: ClaimChange, after: ClaimChange) -> Iterator[Violation]:
    """Yield what may not happen between two changes of one claim that follow each other."""
    what = f"{after.place} at {after.at:.1f} s"
    if after.next_offset < before.next_offset or after.sequence < before.sequence:
        yield Violation(
            "I6",
            f"{what}: went back from {before.next_offset}, sequence {before.sequence}, "
            f"to {after.next_offset}, sequence {after.sequence}",
        )
    if after.epoch < before.epoch or (after.token != before.token and after.epoch != before.epoch + 1):
        yield Violation("I7", f"{what}: epoch {before.epoch} was followed by {after.epoch} with another token")
    if after.next_offset == before.next_offset and after.sequence == before.sequence:
        return
    owner = PROCESS.search(after.owner or "")
    if owner is None or int(owner[1]) != after.writer:
        yield Violation("I7", f"{what}: owned by {after.owner}, and moved by process {after.writer}")
