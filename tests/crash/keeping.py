"""What a failing run leaves for a person: what the servers and processes wrote, the ledger, and the log."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.crash.cluster import TOPICS, Cluster
from tests.crash.evidence import Evidence
from tests.crash.streams import Event, events_of


def keep_logs(made: Cluster, kept: Path) -> None:
    """Keep what Postgres and the processes wrote."""
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copy(made.postgres.log, kept / "postgres.log")
    for worker in made.workers:
        (kept / f"worker-{worker.number}.log").write_text(worker.service.output)


def keep_evidence(made: Cluster, evidence: Evidence, kept: Path) -> None:
    """Keep a line for each row of the ledger, and one for each event of the log, with the time of both."""
    kept.mkdir(parents=True, exist_ok=True)
    rows = ([*row.place, *row[1:]] for row in evidence.ledger)
    (kept / "ledger.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with (kept / "events.jsonl").open("w") as file:
        for event in _events(made):
            file.write(f"{json.dumps(event)}\n")


def _events(made: Cluster) -> Iterator[Event]:
    for topic in TOPICS:
        yield from events_of(made.bootstrap, topic, made.plan.partitions)
