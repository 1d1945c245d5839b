"""`python -m bench.load`: the example service on this machine, and `headrace load` against it: `make load`.

The service runs on the embedded log and database, or with `--on kafka` on a Kafka and a Postgres of its own. All that
follows goes to `headrace load`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.service import Service


async def load(on: str, arguments: list[str]) -> int:
    """Start the service, load it, end it; return the exit code of `headrace load`."""
    with tempfile.TemporaryDirectory(prefix="headrace-load-") as folder:
        if on == "embedded":
            return await _loaded(Service(Path(folder), {}), arguments)
        kafka, postgres = KafkaServer(is_fast=True), PostgresServer()
        try:
            await kafka.start()
            await postgres.start()
            async with postgres.database() as url:
                settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": url}
                return await _loaded(Service(Path(folder), settings), arguments)
        finally:
            await postgres.stop()
            await kafka.stop()


async def _loaded(service: Service, arguments: list[str]) -> int:
    try:
        await service.start()
        command = [sys.executable, "-m", "headrace", "load", service.url, *arguments]
        process = await asyncio.create_subprocess_exec(*command, env=os.environ)
        return await process.wait()
    finally:
        if service.is_running:
            await service.leave()
        await service.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--on", choices=["embedded", "kafka"], default="embedded", help="the log and the database")
    options, arguments = parser.parse_known_args()
    raise SystemExit(asyncio.run(load(options.on, arguments)))


if __name__ == "__main__":
    main()
