"""I1, I2, I3: what the log has is in the lists, once, in its order; what is not applied is a dead letter."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.crash.checkers.violation import Violation
from tests.crash.evidence import Evidence

NOTHING: array[int] = array("I")
NOWHERE = ("", 0, 0)
IN_SEQUENCE = "stepped"
EXPIRED_SECONDS = 10.0
"""Behind a state's last change: a batch that read it in its last moment may take so long, beside the longest fault that
holds it up."""


def check_accepted(evidence: Evidence) -> Iterator[Violation]:
    """I1: every event that was acknowledged is in the log."""
    there, sent = evidence.streams.by_type["noted"].there, evidence.history.sent
    for key, count in sent.by_key.items():
        found = there[key].bit_count()
        if found < count:
            yield Violation("I1", f"{count} events of {key} were acknowledged, and {found} are in the log")
    for failed in sent.failed[:3]:
        yield Violation("I1", f"the load could not publish: {failed}")
    for strange in evidence.streams.strange[:3]:
        yield Violation("I1", f"a record of nobody is in the log: {strange}")


def check_applied(evidence: Evidence) -> Iterator[Violation]:
    """I1, I2 and I3, of each key: the list is what the log says."""
    for type_, found in evidence.lists.items():
        expected = evidence.streams.by_type[type_].numbers
        for key in expected.keys() | found.keys():
            wanted, applied = _in_order(type_, expected.get(key, NOTHING)), found.get(key, NOTHING)
            if wanted != applied:
                yield judge(f"{type_} {key}", wanted, applied)


def check_begun(evidence: Evidence) -> Iterator[Violation]:
    """I2 and I3 at any time: what is applied to a key so far is the beginning of what the log says."""
    for type_, found in evidence.lists.items():
        expected = evidence.streams.by_type[type_].numbers
        for key, applied in found.items():
            wanted = _in_order(type_, expected.get(key, NOTHING))[: len(applied)]
            if wanted == applied:
                continue
            if len(set(applied)) == len(applied) and set(applied) <= set(expected.get(key, NOTHING)):
                yield Violation("I3", f"{type_} {key}: {list(applied)[:70]} is not how the log begins")
            else:
                yield judge(f"{type_} {key}", wanted, applied)


def _in_order(type_: str, numbers: array[int]) -> array[int]:
    """Return the order in which a subscription has to apply what is in the log."""
    return array("I", sorted(numbers)) if type_ == IN_SEQUENCE else numbers


def check_recent(evidence: Evidence) -> Iterator[Violation]:
    """I1, I2 and I3 of states that expire: what is left of one are the last events of its key."""
    expected = evidence.streams.by_type["reminded"].numbers
    for key, found in evidence.recent.items():
        every = expected.get(key, NOTHING)
        last = every[max(0, len(every) - len(found)) :]
        if not found or last != found:
            yield judge(f"recently reminded {key}", last, found)
        yield from _check_expired(evidence, key, found)


def _check_expired(evidence: Evidence, key: str, found: Sequence[int]) -> Iterator[Violation]:
    """I2: an event that comes when the state is over begins another one."""
    places, history = evidence.streams.places, evidence.history
    taken = [evidence.began("echoes", places.get(("reminded", key, number), NOWHERE)) for number in found]
    for number, before, after in zip(found, taken, taken[1:], strict=False):
        if before > 0 and after - before > EXPIRED_SECONDS + history.longest_fault(before, after):
            yield Violation(
                "I2",
                f"recently reminded {key}: {number}, applied at {before - history.began_at:.1f} s, is there "
                f"{after - before:.1f} s later, and lives for a second",
            )


def check_sided(evidence: Evidence) -> Iterator[Violation]:
    """I1, I2 and I3 on the topic whose log is meddled with: each fault knows what is left of it."""
    expected, found = evidence.history.sided, evidence.sided
    for key in expected.keys() | found.keys():
        wanted, applied = expected.get(key, []), list(found.get(key, NOTHING))
        if wanted != applied:
            yield judge(f"sided {key}", wanted, applied)


def judge(where: str, wanted: Sequence[int], applied: Sequence[int]) -> Violation:
    """Name what is wrong with a list."""
    doubled = sorted(number for number, count in Counter(applied).items() if count > 1)
    lost = sorted(set(wanted) - set(applied))
    strange = sorted(set(applied) - set(wanted))
    if doubled:
        return Violation("I2", f"{where}: {doubled[:10]} are applied more than once")
    if lost:
        return Violation("I1", f"{where}: {lost[:10]} are lost")
    if strange:
        return Violation("I1", f"{where}: {strange[:10]} are applied, and are not to be")
    return Violation("I3", f"{where}: {list(applied)[:70]} is not the order of the log")


def check_dead_letters(evidence: Evidence) -> Iterator[Violation]:
    """I1 and I2: what cannot be applied is one dead letter, and nothing else is."""
    expected = evidence.streams.malformed | evidence.streams.rejected
    for position, count in evidence.dead.items():
        if position not in expected:
            yield Violation("I1", f"{position} is a dead letter, and could be applied")
        elif count > 1:
            yield Violation("I2", f"{position} is {count} dead letters")
    for position in expected - evidence.dead.keys():
        yield Violation("I1", f"{position} is neither applied nor a dead letter")
