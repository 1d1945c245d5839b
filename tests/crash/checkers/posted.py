"""I1 and I3 at the door: a 202 is answered for what the log has, in the order of a client that waits for its answers.

That a posted event takes effect once, whether it was answered or not, is for `applied.py` to say of the whole log.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.crash.checkers.applied import NOTHING
from tests.crash.checkers.violation import Violation
from tests.crash.evidence import Evidence


def check_posted(evidence: Evidence) -> Iterator[Violation]:
    """Compare the log with the answers, key by key."""
    there = evidence.streams.by_type["noted"].numbers
    for key, posted in evidence.history.sent.posted.items():
        numbers = there.get(key, NOTHING)
        lost = sorted(set(range(posted.accepted)) - set(numbers))
        strange = sorted(number for number in numbers if number >= posted.tried)
        if lost:
            yield Violation("I1", f"{lost[:10]} of {key} were answered with 202, and are not in the log")
        if strange:
            yield Violation("I1", f"{strange[:10]} of {key} are in the log, and were never posted")
        if list(numbers) != sorted(numbers):
            yield Violation("I3", f"{key} was posted in order, and is in the log as {list(numbers)[:70]}")
