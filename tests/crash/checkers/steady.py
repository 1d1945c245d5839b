"""What must not happen for nothing: lost claims, refused partitions, events that end processes. I12: attempts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from operator import attrgetter

from tests.crash.checkers.claims import PROCESS
from tests.crash.checkers.violation import Violation
from tests.crash.evidence import CountedDeath, Evidence, Place
from tests.crash.history import ClaimChange

MOST_DEATHS = 4
"""Processes that one event may end: it is given up on after three attempts, and one may be lost to another fault."""


def check_fenced(evidence: Evidence) -> Iterator[Violation]:
    """I7: who says that it has lost a claim has lost it to another owner."""
    if evidence.is_put_back:
        return  # it has lost it to an earlier self
    changes: defaultdict[Place, list[ClaimChange]] = defaultdict(list)
    for change in sorted(evidence.history.changes, key=attrgetter("number")):
        changes[change.place].append(change)
    for place, epoch in sorted(evidence.fenced):
        if _is_for_nothing(changes[place], epoch):
            yield Violation("I7", f"{place}: its owner gave it up in epoch {epoch} for nothing, and took it again")


def _is_for_nothing(changes: Sequence[ClaimChange], epoch: int) -> bool:
    owners = [change.owner for change in changes if change.epoch == epoch]
    next_owners = [change.owner for change in changes if change.epoch == epoch + 1]
    return bool(owners and next_owners and None not in owners and owners[-1] == next_owners[0])


def check_refused(evidence: Evidence) -> Iterator[Violation]:
    """I1: no partition is refused whose log nobody has meddled with."""
    for line in sorted(evidence.refused)[:3]:
        yield Violation("I1", f"refused for nothing: {line}")


def check_deaths(evidence: Evidence) -> Iterator[Violation]:
    """I12: an attempt counts before it runs, so that an event ends a few processes at most."""
    for event, count in evidence.deaths.items():
        if count > MOST_DEATHS and not evidence.is_put_back:
            yield Violation("I12", f"{event} has ended {count} processes")


def check_attempts(evidence: Evidence) -> Iterator[Violation]:
    """I12: each attempt counts once."""
    for jump in evidence.jumps[:3]:
        yield Violation("I12", f"attempts of a lane were raised by more than one: {jump}")


def check_counted_deaths(evidence: Evidence) -> Iterator[Violation]:
    """I12: a process counts an attempt of calls only where it has taken their claim from an owner that had died."""
    if evidence.is_put_back:
        return
    taken, owners = Counter[CountedDeath](), dict[Place, str | None]()
    for change in sorted(evidence.history.changes, key=attrgetter("number")):
        before, owners[change.place] = owners.get(change.place), change.owner
        if None is not before != change.owner and (owner := PROCESS.search(change.owner or "")) is not None:
            taken[CountedDeath(change.subscription, change.partition, int(owner[1]))] += 1
    for counted, times in Counter(evidence.counted_deaths).items():
        if times > taken[counted]:
            what = f"counted a death in {counted.subscription}/{counted.partition} {times} times"
            yield Violation("I12", f"process {counted.writer} {what}, and took it from {taken[counted]} dead owners")
