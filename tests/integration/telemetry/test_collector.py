"""Spans to a collector over HTTP: one that answers, and one that takes connections and never answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headrace.telemetry.metrics import Metrics
from headrace.telemetry.tracing import EventLink, Tracing

SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector:
    """A collector of ten lines: keeps the names of the spans it is sent."""

    def __init__(self) -> None:
        names = self.names = []  # type: list[str]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = ExportTraceServiceRequest.FromString(body)
                names.extend(span.name for r in request.resource_spans for s in r.scope_spans for span in s.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


@pytest.fixture
def swallower() -> Iterator[str]:
    """An address that accepts connections (the kernel does) and never reads nor answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def record_batch(tracing: Tracing, offset: int) -> None:
    now = time.time_ns()
    tracing.batch(
        subscription="wallets",
        topic="wallets",
        partition=0,
        epoch=1,
        started_ns=now,
        ended_ns=now,
        first_offset=offset,
        last_offset=offset,
        links=[EventLink(SAMPLED, None, str(offset), offset, "applied")],
        applied=1,
        skipped=0,
        parked=0,
    )


def test_spans_reach_the_collector_when_the_process_stops(
    monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    tracing = Tracing(service="shop", version="1")
    with tracing.ingest("/events", {}), tracing.send("wallets", 1):
        pass
    record_batch(tracing, 1)
    tracing.shutdown(30)
    assert sorted(collector.names) == ["POST /events", "process wallets", "send wallets"]


def test_a_collector_that_never_answers_costs_no_time(monkeypatch: pytest.MonkeyPatch, swallower: str) -> None:
    """It costs spans. The exporter waits for an hour: if any call waited for the collector, the test would not end."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", swallower)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "600")
    metrics = Metrics(version="1", role="worker")
    tracing = Tracing(metrics=metrics)
    for offset in range(1_000):
        record_batch(tracing, offset)
    dropped = metrics.registry.get_sample_value("headrace_trace_spans_dropped_total", {"reason": "queue_full"})
    assert dropped == 400
    tracing.shutdown(0.2)
