"""The sockets are bound before anything is started."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest
import uvloop

from headrace.cli.server import AT_ONCE, listen, several_times
from headrace.errors import ConfigurationError


def test_free_port_is_taken_where_0_is_asked_for() -> None:
    (listener,) = listen("127.0.0.1", 0)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert listener.getsockname()[1] > 0


def test_every_address_of_a_name_gets_the_same_port() -> None:
    listeners = listen("localhost", 0)
    try:
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
    finally:
        for listener in listeners:
            listener.close()


def test_port_that_is_taken_is_named() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"--port {port} is taken by another process; choose another"):
            listen("127.0.0.1", port)


def test_address_of_another_machine_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"--host 203\.0\.113\.7 cannot be served on: .*; name an address of"):
        listen("203.0.113.7", 0)


def test_client_is_not_refused_while_the_start_goes_on() -> None:
    (listener,) = listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname(), timeout=5):
        pass


def test_connections_are_taken_many_at_a_time() -> None:
    """uvloop alone takes one in a turn of the loop, and those that a busy process does not take in time wait."""
    connected = 0

    class Counted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal connected
            connected += 1

    async def turns_until_all_are_taken(address: tuple[str, int], sockets: list[socket.socket], clients: int) -> int:
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(Counted, sock=each) for each in sockets]
        turns = 0
        with ExitStack() as opened:
            for _ in range(clients):
                opened.enter_context(socket.create_connection(address))
            while connected < clients:
                await asyncio.sleep(0)
                turns += 1
        for server in servers:
            server.close()
        return turns

    (listener,) = listen("127.0.0.1", 0)
    turns = uvloop.run(turns_until_all_are_taken(listener.getsockname(), several_times([listener]), 4 * AT_ONCE))
    assert turns < 2 * AT_ONCE
