"""Two services on one machine do not stand in each other's way."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress

from pydantic import SecretStr

from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from tests.support.platform import notebook, running
from tests.support.web import http_client


async def test_second_service_takes_a_free_management_port(database_url: str, topic_name: str) -> None:
    settings = Settings(log="memory", database=SecretStr(database_url), partitions=1)
    with ExitStack() as stack:
        holder = stack.enter_context(socket.socket())
        with suppress(OSError):  # somebody else holds it, which will do as well
            holder.bind(("127.0.0.1", settings.management_port))
            holder.listen()
        async with running(notebook(settings, topic_name), MemoryLog()) as runtime, http_client() as client:
            assert runtime.management_port not in (0, settings.management_port)
            answer = await client.get(f"http://127.0.0.1:{runtime.management_port}/health/ready")
    assert answer.status_code == 200
