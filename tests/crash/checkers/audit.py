"""The platform's own audit finds nothing either."""

from __future__ import annotations

from collections.abc import Iterator

from tests.crash.checkers.violation import Violation
from tests.crash.evidence import Evidence


def check_audit(evidence: Evidence) -> Iterator[Violation]:
    """Hand on its findings."""
    for finding in evidence.findings:
        yield Violation("audit", finding)
