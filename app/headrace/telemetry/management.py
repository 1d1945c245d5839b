"""The management port: /metrics and /health on a thread of its own; it answers while the event loop is blocked."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from headrace.errors import ConfigurationError
from headrace.loopback import host_name, is_loopback
from headrace.telemetry.health import Health
from headrace.telemetry.logging import get_logger
from headrace.telemetry.metrics import Metrics

logger = get_logger("headrace")

JSON = "application/json"
IDLE_SECONDS = 10.0
"""A connection that is silent for longer is closed; Prometheus and the kubelet ask at least as often."""
STOP_POLL_SECONDS = 0.1


class Page(NamedTuple):
    """What is answered."""

    status: int
    content_type: str
    body: bytes


FOREIGN = Page(403, "text/plain", b"This port is for this machine alone: ask http://localhost or http://127.0.0.1.\n")
NOT_FOUND = Page(404, "text/plain", b"The paths here are /metrics, /health/live and /health/ready.\n")

Pages = Callable[[str, Mapping[str, list[str]], str | None], Page]
"""(path, query, the `Accept` header) to the page. It is called in threads."""


def pages_of(health: Health, metrics: Metrics) -> Pages:
    """Return /metrics, /health/live (`?startup` for the startup probe) and /health/ready of one process."""

    def answer(path: str, query: Mapping[str, list[str]], accept: str | None) -> Page:
        if path == "/metrics":
            body, content_type = metrics.render(accept)
            return Page(200, content_type, body)
        if path == "/health/live":
            status, body = health.live_report(is_startup="startup" in query)
            return Page(status, JSON, body)
        if path == "/health/ready":
            status, body = health.ready_report()
            return Page(status, JSON, body)
        return NOT_FOUND

    return answer


class ManagementServer:
    """Serves pages."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self._host = host
        self._port = port
        self._pages = pages
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listen, and return the port (a free one if 0 was asked for). Raises: ConfigurationError."""
        pages, is_local = self._pages, is_loopback(self._host)

        class Handler(_Handler):
            def answer(self, path: str, query: dict[str, list[str]]) -> Page:
                host = self.headers.get("Host")
                if is_local and host and not is_loopback(host_name(f"//{host}")):  # a page's own name: DNS rebinding
                    return FOREIGN
                return pages(path, query, self.headers.get("Accept"))

        try:
            family, *_, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
            server_class = type("_FamilyServer", (_Server,), {"address_family": family})
            self._server = server_class(address[:2], Handler)
        except OSError as error:
            raise _explained(self._host, self._port, error) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_POLL_SECONDS,), name="headrace-management", daemon=True
        )
        self._thread.start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop listening. Does not wait for connections; nothing happens if it was not started."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None


def open_port(host: str, port: int, pages: Pages, *, may_move: bool) -> tuple[ManagementServer, int]:
    """Return a server that listens, and its port: another one if the port is taken and it `may_move`.

    Raises: ConfigurationError.
    """
    server = ManagementServer(host, port, pages)
    try:
        found = server.start()
    except ConfigurationError as error:
        if not may_move or not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
            raise
        server = ManagementServer(host, 0, pages)
        found = server.start()
    logger.info("management port open", host=host, port=found)
    return server, found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Bind without asking DNS for the host's full name, as http.server does: in a pod that can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing if a client went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def answer(self, path: str, query: dict[str, list[str]]) -> Page:
        """Return the page."""
        raise NotImplementedError

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        status, content_type, body = self.answer(url.path, parse_qs(url.query, keep_blank_values=True))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def version_string(self) -> str:
        return "headrace"

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds and are not logged."""


def _explained(host: str, port: int, error: OSError) -> ConfigurationError:
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        trouble = "is taken by another process" if error.errno == errno.EADDRINUSE else "needs rights that are missing"
        return ConfigurationError(
            f"HEADRACE_MANAGEMENT_PORT={port} {trouble}; choose another port, or 0 for a free one."
        )
    return ConfigurationError(f"HEADRACE_MANAGEMENT_HOST={host} cannot be listened on: {error.strerror}.")
