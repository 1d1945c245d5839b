"""A schema registry of a few lines, for what a real one does not do when asked: be behind, refuse, answer nonsense."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.support.ports import free_ports

MISSING = (404, {"error_code": 40403, "message": "Schema not found"})


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    """Its own are five: of more clients that come at once, the kernel lets some wait for a second."""


class SmallRegistry:
    """Serves the answers that a test gives it; `answers` by path, `otherwise` for all other paths."""

    def __init__(self) -> None:
        (self._port,) = free_ports(1)
        self.answers: dict[str, tuple[int, Any]] = {"/schemas/types": (200, ["AVRO", "PROTOBUF", "JSON"])}
        self.otherwise: tuple[int, Any] = MISSING
        self.fault: tuple[int, Any] | None = None
        """What it answers to everything, if it is set."""
        self.asked: list[str] = []
        self.authorization: list[str | None] = []
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """The value for HEADRACE_SCHEMA_REGISTRY_URL, also while it is away."""
        return f"http://127.0.0.1:{self._port}"

    def keep(self, number: int, schema: object, kind: str = "AVRO", **more: Any) -> None:
        """Have a schema by its number; `schema` is text, or what JSON makes of it."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        self.answers[f"/schemas/ids/{number}"] = (200, {"schema": text, "schemaType": kind, **more})

    def start(self) -> None:
        """Answer from now on."""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                registry.authorization.append(self.headers["Authorization"])
                status, body = registry.fault or registry.answers.get(self.path, registry.otherwise)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = _Server(("127.0.0.1", self._port), Handler)
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be away from now on."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
