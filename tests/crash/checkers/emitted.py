"""I4: an event is emitted if and only if the one that it comes from was applied, and under one id."""

from __future__ import annotations

from collections.abc import Iterator

from tests.crash.checkers.violation import Violation
from tests.crash.cluster import NAME
from tests.crash.evidence import ECHOES, Evidence


def check_emitted(evidence: Evidence) -> Iterator[Violation]:
    """Compare both topics: what was to be emitted with what is there, and under which ids."""
    wanted, found = evidence.logs[NAME].echoed, evidence.logs[ECHOES].ids
    for key, number in sorted(wanted - found.keys())[:10]:
        yield Violation("I4", f"what {key}/{number} emits is not in the log")
    for key, number in sorted(found.keys() - wanted)[:10]:
        yield Violation("I4", f"{key}/{number} was emitted by nothing that is applied")
    for (key, number), ids in found.items():
        if len(ids) > 1:
            yield Violation("I4", f"what {key}/{number} emits is there under {len(ids)} ids")
