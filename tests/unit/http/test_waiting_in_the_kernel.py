"""How long a request has waited to be read is asked of the kernel."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from headrace.http.kernel import waited_seconds
from tests.support.waiting import until

SECONDS = 0.02


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell")
async def test_kernel_tells_for_how_long_it_has_had_what_was_sent() -> None:
    made: asyncio.Queue[asyncio.Transport] = asyncio.Queue()

    class Unread(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.pause_reading()
            made.put_nowait(transport)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Unread, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        transport = await made.get()
        for _ in range(2):
            writer.write(b"GET")
            await writer.drain()
            await until(lambda: waited_seconds(transport) < SECONDS, "the bytes have just arrived")
            await until(lambda: waited_seconds(transport) > SECONDS, "they wait")
        writer.close()
        transport.abort()


async def test_other_sockets_have_not_waited() -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    assert waited_seconds(transport) == 0.0
    transport.abort()
    theirs.close()
