"""I9: when all is quiet, what the owner of a partition remembers is what Postgres has."""

from __future__ import annotations

from collections.abc import Iterator

from tests.crash.checkers.violation import Violation
from tests.crash.evidence import Evidence


def check_memory(evidence: Evidence) -> Iterator[Violation]:
    """Hand on what the processes say of themselves."""
    for finding in evidence.memory:
        yield Violation("I9", finding)
