"""What all processes of a test run share, made when one of them first asks: a Kafka, and a database nobody used.

The process that was started (pytest-xdist's workers are its children) answers on a Unix socket, whose path is in
`VARIABLE`: one line asks, one line of JSON answers. What it has started ends with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from headrace.database.embedded import EmbeddedPostgres
from headrace.database.migrate import migrate
from tests.support.kafka import KafkaServer

VARIABLE = "HEADRACE_TEST_SHARED"
CLUSTER = "postgres/cluster"
"""Where the embedded PostgreSQL keeps its files, in HEADRACE_DATA_DIR."""


async def shared_kafka() -> KafkaServer:
    """Return the run's Kafka, which is not the caller's to stop."""
    return KafkaServer(ports=await asyncio.to_thread(_ask, "kafka"))


def give_database(data_dir: Path) -> None:
    """Put a database that holds nothing into the folder, unless it has one; a copy takes a tenth of making it."""
    if VARIABLE in os.environ and not (data_dir / CLUSTER).exists():
        data_dir.joinpath(CLUSTER).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-Rp", _ask("database"), data_dir / CLUSTER], check=True)  # half of copytree's time


class SharedServers:
    """Answers in a thread of its own, since a server ends with the thread that started it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-shared-"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._answers: dict[str, Any] = {}
        self._kafka: KafkaServer | None = None
        self._thread = threading.Thread(target=self._serve, name="shared servers")

    def start(self) -> None:
        """Answer from now on: this process, and those that it starts."""
        path = str(self._folder / "socket")
        self._listener.bind(path)
        self._listener.listen(64)
        os.environ[VARIABLE] = path
        self._thread.start()

    def stop(self) -> None:
        """End what was started, and remove all that it stored."""
        _ask("stop")
        self._thread.join()
        self._listener.close()
        shutil.rmtree(self._folder)
        del os.environ[VARIABLE]

    def _serve(self) -> None:
        asked = ""
        with asyncio.Runner() as runner:
            while asked != "stop":
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rw") as stream:
                    asked = stream.readline().strip()
                    if asked not in self._answers:
                        self._answers[asked] = runner.run(self._answer(asked))
                    stream.write(json.dumps(self._answers[asked]) + "\n")

    async def _answer(self, asked: str) -> Any:
        """Return what was asked for, or `{"error": ...}`, which fails every test that asks for the same."""
        try:
            match asked:
                case "kafka":
                    self._kafka = KafkaServer()
                    await self._kafka.start()
                    return self._kafka.ports
                case "database":
                    server = EmbeddedPostgres(self._folder / "postgres")
                    await migrate(await server.start())
                    await server.stop()
                    return str(self._folder / CLUSTER)
                case "stop" if self._kafka is not None:
                    await self._kafka.stop()
        except BaseException as error:
            return {"error": f"{asked}: {error}"}


def _ask(what: str) -> Any:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[VARIABLE])
        with connection.makefile("rw") as stream:
            stream.write(f"{what}\n")
            stream.flush()
            answer = json.loads(stream.readline())
    if isinstance(answer, dict):
        raise RuntimeError(answer["error"])
    return answer
