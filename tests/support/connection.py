"""One connection to what reads HTTP for `headrace run`, in the test's own event loop.

async with connected(app) as (protocol, (reader, writer)):
    writer.write(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from headrace.http.connection import BoundedProtocol, bounded
from headrace.settings import IngestSettings
from tests.support.waiting import until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(app: Any, **limits: Any) -> AsyncIterator[tuple[BoundedProtocol, Streams]]:
    """Yield what serves the application to one client, whose connection may be idle for a moment, and the client."""
    config = Config(app, http=bounded(IngestSettings(**limits)), lifespan="off", log_config=None, timeout_keep_alive=0)
    config.load()
    made: list[BoundedProtocol] = []

    def make() -> asyncio.Protocol:
        protocol = cast("type[BoundedProtocol]", config.http_protocol_class)(config, ServerState(), {})
        made.append(protocol)
        return protocol

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    async with server:
        taking = socket.socket()
        taking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        taking.setblocking(False)
        await asyncio.get_running_loop().sock_connect(taking, server.sockets[0].getsockname())
        client = await asyncio.open_connection(sock=taking)
        try:
            await until(lambda: bool(made), "the connection is taken")
            yield made[0], client
        finally:
            client[1].close()
            made[0].transport.abort()
