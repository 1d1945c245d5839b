"""`python -m bench.timeline ARGUMENT...`: `headrace ARGUMENT...`, which tells when each part of its start is done.

A line for each part is written to the file that `TIMELINE` names: its name, begin and end as `time.monotonic()` tells,
which is the same clock in every process of a machine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.surrounding import surround

BEGUN = "Python starts; PostgreSQL: initdb begins"
LOADED = "the command line is imported"

PARTS = {
    "headrace.cli.run:load_app": "the application is imported",
    "headrace.cli.run:configure_logging": "logging",
    "headrace.runtime:Runtime.start": "the platform starts",
    "headrace.runtime:tune_garbage_collection": "garbage collector",
    "headrace.runtime:Runtime._start_instruments": "management port, watches",
    "headrace.database.embedded:choose_identity": "PostgreSQL: as whom it runs",
    "headrace.database.new_cluster:NewCluster.finish": "PostgreSQL: initdb is waited for, the database is made",
    "headrace.database.new_cluster:flush_all": "PostgreSQL: its files are flushed",
    "headrace.database.embedded:EmbeddedPostgres._run_server": "PostgreSQL: the server comes up",
    "headrace.database.opening:migrate": "the schema",
    "headrace.database.opening:open_pool": "connections",
    "headrace.runtime:Runtime._open_log": "the log",
    "headrace.runtime:Runtime._announce": "heartbeat",
    "headrace.runtime:prepare_topics": "topics",
    "headrace.runtime:prepare_tables": "tables of projections",
    "headrace.runtime:try_to_tend": "days of the ledger",
    "headrace.engine.consumer:Consumer.start": "a consumer starts",
    "headrace.engine.tenure:Tenure.begin": "a partition is claimed",
}


def main() -> None:
    """Run the command line with the parts timed."""
    from headrace.database.early import begin_early

    with open(os.environ["TIMELINE"], "a", buffering=1) as file:

        def tell(part: str, begin: float, end: float) -> None:
            file.write(json.dumps([part, begin, end]) + "\n")

        begin_early(sys.argv[1:])
        begun = time.monotonic()
        tell(BEGUN, float(os.environ["STARTED"]), begun)
        from headrace.cli import cli

        for place, part in PARTS.items():
            _time(place, part, tell)
        tell(LOADED, begun, time.monotonic())
        cli(sys.argv[1:], prog_name="headrace")


def _time(place: str, part: str, tell: Callable[[str, float, float], None]) -> None:
    """Let each call of a function tell its time."""

    @contextmanager
    def timed() -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        finally:
            tell(part, begin, time.monotonic())

    module, _, path = place.partition(":")
    surround(module, path, timed)


if __name__ == "__main__":
    main()
