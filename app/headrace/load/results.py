"""What a run found, as plain values: the JSON report is these, and tables and pages are made of them."""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.load.latency import Percentiles

Verdict = Literal["warm-up", "held", "not held", "void"]


class Sample(msgspec.Struct, frozen=True):
    """What was seen at one moment. Counts are of the run."""

    at_seconds: float
    accepted: int
    applied: int | None
    lag: int | None
    in_flight: int


class StepResult(msgspec.Struct):
    """One step. Rates are events per second; latencies count from when the send was due."""

    name: str
    offered_per_second: float
    seconds: float
    sends: int
    late_sends: int
    """Sends that began later than `pacing.LATE_SECONDS` after they were due: the generator's own fault."""
    sent: int
    unsent: int
    accepted: int
    refused: int
    in_doubt: int
    retry_after: int
    """Answers that said when to ask again."""
    retried: int
    """Sends that were repeated because of it."""
    statuses: dict[str, int]
    """Events by the answer's status."""
    accepted_per_second: float
    applied_per_second: float | None
    lag_begin: int | None
    lag_end: int | None
    lag_max: int | None
    to_accepted: Percentiles
    to_visible: Percentiles
    """From when a probe was due until its state could be read."""
    verdict: Verdict = "held"
    reasons: list[str] = msgspec.field(default_factory=list)

    @property
    def late_share(self) -> float:
        """The share of the sends that began late."""
        return self.late_sends / self.sends if self.sends else 0.0


class Exactness(msgspec.Struct):
    """What became of the accepted events."""

    is_exact: bool
    basis: Literal["states", "positions"]
    """What the proof rests on: every state was compared, or only that every record is behind the claims."""
    accepted: int
    applied: int | None
    parked: int
    dead: int
    lag: int | None
    sent_again: int
    """Events that were in doubt and were sent again under the same id."""
    unresolved: int
    """Events that stayed in doubt."""
    keys: int
    keys_read: int
    records: int | None
    """Records that the log took during the run, of whatever producer."""
    counted: dict[str, int] | None
    """The deployment's own counters of the run: applied, skipped, parked, dead. None if they could not be seen."""
    faults: list[str]
    """Sentences; empty if the run was exact."""


class Report(msgspec.Struct):
    """A whole run."""

    run: str
    target: str
    service: str
    via: str
    started_at: str
    plan: list[str]
    subscriptions: list[str]
    machine: dict[str, str]
    steps: list[StepResult]
    samples: list[Sample]
    knee_per_second: float | None
    """The highest rate that was held."""
    ended: str
    """Why no further step was made."""
    exactness: Exactness
