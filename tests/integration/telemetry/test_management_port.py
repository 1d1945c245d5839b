"""The management port over real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from headrace.errors import ConfigurationError
from headrace.telemetry.health import Health
from headrace.telemetry.management import ManagementServer, pages_of
from headrace.telemetry.metrics import Metrics


class Port:
    def __init__(self) -> None:
        self.health = Health()
        self.metrics = Metrics(version="1", role="worker")
        self.server = ManagementServer("127.0.0.1", 0, pages_of(self.health, self.metrics))
        self.number = self.server.start()

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.number, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type") or "", answer.read()
        finally:
            connection.close()


@pytest.fixture
def port() -> Iterator[Port]:
    opened = Port()
    yield opened
    opened.server.stop()


def test_probes_tell_the_reasons(port: Port) -> None:
    assert port.ask("/health/live")[0] == 200
    assert port.ask("/health/live?startup")[0] == 503
    port.health.started = True
    assert port.ask("/health/live?startup")[0] == 200
    assert port.ask("/health/ready")[0] == 200
    port.health.not_ready("schema_too_old")
    status, content_type, body = port.ask("/health/ready")
    assert (status, content_type) == (503, "application/json")
    assert json.loads(body) == {"ready": False, "reasons": ["schema_too_old"]}
    port.health.fail("consumer_stuck")
    assert port.ask("/health/live")[0] == 503


def test_metrics_are_given_in_the_format_that_is_asked_for(port: Port) -> None:
    status, content_type, body = port.ask("/metrics")
    assert (status, content_type.split(";")[0]) == (200, "text/plain")
    assert b"headrace_build_info" in body
    _, content_type, body = port.ask("/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_other_paths_and_methods_are_refused(port: Port) -> None:
    assert port.ask("/")[0] == 404
    assert port.ask("/metrics/../secrets")[0] == 404
    assert port.ask("/health/live", "POST")[0] == 501
    assert port.ask("/health/live", "HEAD") == (200, "application/json", b"")


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example", 403), ("evil.example:9000", 403), ("localhost:9000", 200), ("[::1]", 200)]
)
def test_pages_of_other_sites_are_refused_on_loopback(port: Port, host: str, status: int) -> None:
    """DNS rebinding: a browser asks this machine under the name of the page's own site."""
    assert port.ask("/metrics", Host=host)[0] == status


def test_any_name_is_served_to_who_may_come_from_outside() -> None:
    server = ManagementServer("0.0.0.0", 0, pages_of(Health(), Metrics(version="1", role="worker")))  # noqa: S104
    number = server.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", number, timeout=10)
        connection.request("GET", "/metrics", headers={"Host": "pod-7.shop"})
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.stop()


def test_it_answers_while_the_event_loop_is_blocked(port: Port) -> None:
    blocked, go_on = threading.Event(), threading.Event()

    async def block() -> None:
        blocked.set()
        assert go_on.wait(30)  # the loop of this thread can do nothing else

    thread = threading.Thread(target=asyncio.run, args=(block(),))
    thread.start()
    try:
        assert blocked.wait(30)
        port.health.started = True
        assert port.ask("/health/live")[0] == 200
        assert port.ask("/metrics")[0] == 200
    finally:
        go_on.set()
        thread.join()


def test_several_requests_may_share_a_connection(port: Port) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port.number, timeout=10)
    for _ in range(3):
        connection.request("GET", "/health/live")
        assert connection.getresponse().read()
    connection.close()


def test_a_silent_client_keeps_nobody_waiting(port: Port) -> None:
    with socket.create_connection(("127.0.0.1", port.number)) as silent:
        silent.sendall(b"GET /hea")
        assert port.ask("/health/live")[0] == 200
        port.server.stop()


def test_a_port_that_is_taken_is_named_with_its_setting(port: Port) -> None:
    second = ManagementServer("127.0.0.1", port.number, pages_of(Health(), port.metrics))
    with pytest.raises(ConfigurationError, match=f"HEADRACE_MANAGEMENT_PORT={port.number} is taken"):
        second.start()
    second.stop()


def test_an_address_of_another_machine_is_named_with_its_setting(port: Port) -> None:
    server = ManagementServer("192.0.2.1", 0, pages_of(Health(), port.metrics))
    with pytest.raises(ConfigurationError, match=r"HEADRACE_MANAGEMENT_HOST=192\.0\.2\.1"):
        server.start()


def test_after_the_stop_nobody_listens_and_the_port_is_free(port: Port) -> None:
    port.server.stop()
    with pytest.raises(ConnectionRefusedError):
        port.ask("/health/live")
    again = ManagementServer("127.0.0.1", port.number, pages_of(port.health, port.metrics))
    assert again.start() == port.number
    again.stop()
