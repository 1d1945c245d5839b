"""Connections to Kafka that end: whoever gives one up leaves no socket, and nobody waits for a broker to let it go."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionResponse_v0
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import BrokerMetadata

from headrace.errors import TransportError
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_client import KafkaClient
from headrace.log.kafka_connection import quiet_client_logs
from tests.integration.log.support import settings_for
from tests.support.certificates import make_certificates
from tests.support.waiting import until

SECONDS = 20.0
"""Longer than anything here takes, shorter than asyncio waits for the end of a TLS connection, or TCP for an answer."""


class TerseBroker:
    """A broker that says which requests it knows, once `is_heard` is set, and answers nothing else."""

    def __init__(self) -> None:
        self.is_heard = asyncio.Event()
        self.asked = 0
        self.connected = 0
        self.is_awake = asyncio.Event()
        """Until it is set again, no more bytes are taken."""
        self.is_awake.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the requests of one connection until it is closed."""
        self.connected += 1
        is_greeted = False
        try:
            while size := await reader.read(4):
                await self.is_awake.wait()
                request = await reader.readexactly(int.from_bytes(size))
                self.asked += 1
                if not is_greeted:
                    is_greeted = True
                    await self.is_heard.wait()
                    answer = request[4:8] + ApiVersionResponse_v0(0, [(3, 0, 5), (18, 0, 0)]).encode()
                    writer.write(len(answer).to_bytes(4) + answer)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass  # given up in the middle of a request
        finally:
            self.connected -= 1
            writer.close()


@asynccontextmanager
async def terse_broker() -> AsyncIterator[tuple[TerseBroker, KafkaClient, int]]:
    """Yield the broker, a client of it, and its port."""
    broker = TerseBroker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield broker, KafkaClient(bootstrap_servers=f"127.0.0.1:{port}"), port
    server.close()


async def test_a_connection_that_is_given_up_is_closed() -> None:
    """The client is let in, and cancelled before it is told which brokers there are."""
    async with terse_broker() as (broker, client, _):
        broker.is_heard.set()
        connecting = asyncio.create_task(client.bootstrap())
        await until(lambda: broker.asked == 2, "the client asks for the brokers")
        connecting.cancel()
        await asyncio.wait({connecting})
        await client.close()
        await until(lambda: not broker.connected, "the connection is closed")


async def test_a_connection_that_comes_after_the_end_is_closed() -> None:
    """The client is closed while somebody else waits for a connection to a broker."""
    async with terse_broker() as (broker, client, port):
        client.cluster._brokers = {1: BrokerMetadata(1, "127.0.0.1", port, None)}
        reaching = asyncio.create_task(client.ready(1))
        await until(lambda: broker.asked == 1, "the client asks what the broker knows")
        await client.close()
        broker.is_heard.set()
        assert await reaching is False
        await until(lambda: not broker.connected, "the connection is closed")


async def test_a_connection_that_the_broker_closed_is_closed_here() -> None:
    """The next request comes before the connection's own task has seen that the broker hung up, and finds no other."""
    quiet_client_logs()  # what is logged is kept by the test, and the connection with it
    async with terse_broker() as (broker, client, port):
        broker.is_heard.set()
        client.cluster._brokers = {1: BrokerMetadata(1, "127.0.0.1", port, None)}
        asking = asyncio.create_task(client.send(1, MetadataRequest([])))
        await until(lambda: broker.asked == 2, "the client asks for the brokers")
        client.cluster._brokers = {}
        client._conns[1, ConnectionGroup.DEFAULT]._reader.feed_eof()
        assert await client.ready(1) is False
        async with asyncio.timeout(SECONDS):
            with pytest.raises(KafkaConnectionError):
                await asking
        await until(lambda: not broker.connected, "the connection is closed", SECONDS)
        await client.close()


async def test_an_end_does_not_wait_for_what_cannot_be_sent() -> None:
    """A broker that has frozen reads nothing, and the request is larger than the buffers between."""
    async with terse_broker() as (broker, client, port):
        broker.is_heard.set()
        client.cluster._brokers = {1: BrokerMetadata(1, "127.0.0.1", port, None)}
        assert await client.ready(1)
        broker.is_awake.clear()
        asking = asyncio.create_task(client.send(1, MetadataRequest(["x" * 30_000] * 2_000)))
        await until(client._conns[1, ConnectionGroup.DEFAULT]._writer.transport.get_write_buffer_size, "it is sent")
        async with asyncio.timeout(SECONDS):
            await client.close()
            with pytest.raises(KafkaConnectionError):
                await asking
        broker.is_awake.set()
        await until(lambda: not broker.connected, "the connection is closed", SECONDS)


async def test_a_silent_broker_is_left_though_it_speaks_tls(tmp_path: Path) -> None:
    """Stopped while it connects: the broker answers neither the first request nor the end of the TLS connection."""
    certificates = make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server)
    loop, is_heard = asyncio.get_running_loop(), asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(
            asyncio.to_thread(_be_silent, listener, context, lambda: loop.call_soon_threadsafe(is_heard.set))
        )
        address = f"kafka://127.0.0.1:{listener.getsockname()[1]}"
        log = KafkaLog(settings_for(address, security_protocol="SSL", tls_ca_file=certificates.authority))
        starting = asyncio.create_task(log.start())
        await is_heard.wait()
        await log.stop()
        with pytest.raises(TransportError, match="stopped before it was connected"):
            await starting
        await serving


def _be_silent(listener: socket.socket, context: ssl.SSLContext, heard: Callable[[], object]) -> None:
    """Take one connection and one request, and return when the client has closed its socket. Raises: TimeoutError."""
    taken, _ = listener.accept()
    with context.wrap_socket(taken, server_side=True) as secured:
        secured.recv(65_536)
        heard()
        with socket.socket(fileno=secured.detach()) as bare, contextlib.suppress(ConnectionResetError):
            bare.settimeout(SECONDS)
            while bare.recv(65_536):
                pass
