"""What happened in a run, as an outsider saw it: sent events, faults, changes of claims, refusals, samples."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple


class ClaimChange(NamedTuple):
    """A row of `headrace.claim` as one statement left it.

    Those of one claim are in the order of their numbers, since the row was locked when its number was drawn. They are
    not always seen in that order: a transaction that began earlier may have waited for the lock.
    """

    number: int
    at: float
    """Seconds since the run began, by the server's clock."""
    subscription: str
    topic: str
    partition: int
    owner: str | None
    epoch: int
    token: str
    next_offset: int
    sequence: int
    writer: int
    """The process whose session wrote it; 0 if it is not one of the workers."""
    life: int
    """How often the database had been put back by then."""

    @property
    def place(self) -> tuple[str, str, int]:
        """Which claim it is."""
        return self.subscription, self.topic, self.partition


class Refusal(NamedTuple):
    """A statement that asked for a claim to move and changed nothing, as the server's log has it."""

    at: float
    writer: int
    statement: str


class Sample(NamedTuple):
    """How far everything was at one moment."""

    at: float
    sent: int
    applied: int
    workers: int
    """Processes that run, frozen ones among them."""
    connections: int
    """Sessions of workers in Postgres."""
    largest_bytes: int
    """Resident memory of the largest worker."""


@dataclass
class Fault:
    """One fault that was done."""

    kind: str
    point: str
    began: float
    ended: float = 0.0
    detail: str = ""
    is_done: bool = True
    """False if it found nothing to hit, such as a point that no process came to."""
    zombies: int = 0
    """Statements of a process that had lost its claims, proven to be refused."""


@dataclass
class Posted:
    """How many of a key's events were posted, and for how many of these a worker has answered 202: those from 0 on."""

    tried: int = 0
    accepted: int = 0


@dataclass
class Sent:
    """What the load has published, and what the log has acknowledged."""

    produced: int = 0
    acknowledged: int = 0
    failed: list[str] = field(default_factory=list)
    by_key: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Acknowledged events of each key; copies of them do not count."""
    posted: defaultdict[str, Posted] = field(default_factory=lambda: defaultdict(Posted))
    """What clients have posted to the workers, by key."""
    booked: int = 0
    """Bookings that a worker has answered."""
    extras: Counter[str] = field(default_factory=Counter)
    """Copies, malformed records, events with trouble in them, and what came of posting."""


@dataclass
class History:
    """All of it."""

    sent: Sent = field(default_factory=Sent)
    sided: dict[str, list[int]] = field(default_factory=dict)
    """What has to be applied to each key of the topic whose log is meddled with."""
    faults: list[Fault] = field(default_factory=list)
    changes: list[ClaimChange] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    began_at: float = 0.0
    """In Unix seconds."""
    seconds: float = 0.0
    settled_seconds: float = 0.0
    """From the last fault until nothing waited any more."""

    def longest_fault(self, since: float, until: float) -> float:
        """Return how many seconds the longest fault took that was under way between two times, in Unix seconds."""
        return max(
            (
                fault.ended - fault.began
                for fault in self.faults
                if self.began_at + fault.began < until and self.began_at + fault.ended > since
            ),
            default=0.0,
        )
