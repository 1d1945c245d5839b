"""The client of a load test asks a target that does not answer no more than it has to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from headrace.load import http_client
from headrace.load.http_client import HttpClient
from headrace.load.sender import HttpSender
from headrace.load.workload import Workload, wallets

SENDS = 20


@pytest.fixture
async def silent() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Yield the address of a target that takes requests and never answers, and what it was sent."""
    taken: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65_536):
            taken.append(part)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", taken


async def test_what_nobody_took_is_not_in_doubt() -> None:
    """Sent again one after the other, what a target missed while it was away would outlast the time to settle it."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client = HttpClient(f"http://127.0.0.1:{nobody.getsockname()[1]}", connections=1)
        outcome = await HttpSender(client, "/load", sets_key=False).send(Workload("r", wallets(), 10, 1).make(1))
    assert (outcome.status, outcome.is_accepted, outcome.is_in_doubt) == ("connection refused", False, False)


async def test_what_queued_for_a_silent_target_is_not_sent(
    silent: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each connection would wait for one after the other of thousands, each for as long as for the first."""
    monkeypatch.setattr(http_client, "TIMEOUT_SECONDS", 1.0)
    address, taken = silent
    client = HttpClient(address, connections=1)
    sender = HttpSender(client, "/load", sets_key=False)
    make = Workload("r", wallets(), 10, 1).make
    outcomes = await asyncio.gather(*(sender.send(make(1)) for _ in range(SENDS)))
    client.close()
    assert [outcome.is_in_doubt for outcome in outcomes] == [True] + [False] * (SENDS - 1)
    assert not any(outcome.is_accepted for outcome in outcomes)
    assert len(taken) == 1
