"""What the scenario stands on: Kafka, Postgres behind a proxy, two processes, and Kubernetes' own metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bench.monitored.scenario import APP, PARTITIONS, Shop
from tests.support.kafka import KafkaServer
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer
from tests.support.postgres_proxy import PostgresProxy
from tests.support.service import Service

MOST_BYTES = 50_000
"""What the topic of alerts takes; an event above it is refused by the broker."""

KUBERNETES = """
kube_horizontalpodautoscaler_status_current_replicas{horizontalpodautoscaler="shop-worker-default"} 2
kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler="shop-worker-default"} 4
kube_pod_container_status_restarts_total{container="headrace"} %d
"""
"""What kube-state-metrics would say."""


@asynccontextmanager
async def shop(folder: Path) -> AsyncIterator[Shop]:
    """Start the servers and both processes; everything is ended afterwards."""
    kafka, postgres = KafkaServer(), PostgresServer()
    await asyncio.gather(kafka.start(), postgres.start())
    try:
        for topic in ("wallets", "payments", "accounts"):
            await kafka.create_topic(topic, PARTITIONS)
        await kafka.create_topic("alerts", PARTITIONS, max_message_bytes=str(MOST_BYTES))
        async with postgres.database() as url, PostgresProxy(url) as proxy:
            settings = {
                "HEADRACE_LOG": kafka.url,
                "HEADRACE_DATABASE": proxy.url,
                "HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS": "6",
                "HEADRACE_KAFKA_HEARTBEAT_SECONDS": "0.5",
                "HEADRACE_DATABASE_IDLE_IN_TRANSACTION_SECONDS": "3",
                "HEADRACE_ENGINE_HANDLER_SECONDS": "2",
                "HEADRACE_ENGINE_BATCH_SECONDS": "5",
                "HEADRACE_ENGINE_STUCK_SECONDS": "5",
                "HEADRACE_LOG_LEVEL": "ERROR",
                "HEADRACE_LOG_HANDLER_ERRORS": "type",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_ports(1)[0]}",
                "OTEL_BSP_SCHEDULE_DELAY": "1000",
            }
            services = Service(folder, settings, app=APP), Service(folder, settings, app=APP, role="worker")
            try:
                for service in services:
                    await service.start()
                yield Shop(*services, kafka, postgres, proxy)
            finally:
                for service in services:
                    await service.stop()
    finally:
        await postgres.stop()
        await kafka.stop()


@asynccontextmanager
async def kubernetes() -> AsyncIterator[int]:
    """Serve what kube-state-metrics would say; yields its port."""
    started = time.monotonic()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = (KUBERNETES % ((time.monotonic() - started) // 60)).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
