"""What an audit finds, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, get_args

Check = Literal["offsets", "ids", "emits", "lanes", "states", "memory"]
CHECKS: tuple[Check, ...] = get_args(Check)
OF_MEMORY: Check = "memory"
"""The check that each process makes of itself; the others compare tables, whoever does it."""

_KEEP = "pause the subscription and keep a copy of the database before you change anything"
ADVICE: dict[Check, str] = {
    "offsets": f"batches may be lost or doubled from here on; {_KEEP}, then compare the states with the log.",
    "ids": f"an event may have been applied twice; {_KEEP}, then look for the event with this id.",
    "emits": "emitted events may not be in the log; look whether HeadraceEmitsPending fires, then at the owner's log.",
    "lanes": f"events of this key may be stuck, lost or out of order; {_KEEP}, then compare lane and dead letters.",
    "states": f"a row was written by something else than Headrace; {_KEEP}, then look who may write to the schema.",
    "memory": "the row was changed beside its owner; restart the owner, which then reads it, and look who changed it.",
}
"""What a person does about a finding of each check."""


class Finding(NamedTuple):
    """One broken invariant: where, and what was found there."""

    check: Check
    topic: str | None
    partition: int | None
    detail: str

    @property
    def advice(self) -> str:
        """What to do about it."""
        return ADVICE[self.check]


class Report(NamedTuple):
    """One audit of one subscription (named by its group), and how much of it was looked at."""

    group: str
    audited_at: datetime
    seconds: float
    partitions: int
    rows: int
    """The newest ledger rows that were compared."""
    ids: int
    """The newest event ids that were compared."""
    findings: Sequence[Finding]

    @property
    def mismatches(self) -> dict[str, int]:
        """The number of findings of each check that compares tables."""
        counts = Counter(finding.check for finding in self.findings)
        return {check: counts[check] for check in CHECKS if check != OF_MEMORY}


def shown(report: Report, name: str) -> dict[str, Any]:
    """Return what the API and the command show; `name` is what the caller calls the subscription."""
    return {
        "name": name,
        "clean": not report.findings,
        "audited_at": report.audited_at,
        "seconds": round(report.seconds, 3),
        "examined": {"partitions": report.partitions, "ledger_rows": report.rows, "event_ids": report.ids},
        "mismatches": report.mismatches,
        "findings": [{**finding._asdict(), "advice": finding.advice} for finding in report.findings],
    }
