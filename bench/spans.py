"""A collector of spans that takes them and forgets them, so that Headrace exports as in production."""

from __future__ import annotations

import asyncio
import re
from types import TracebackType
from typing import Self

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"


class SpanSink:
    """Answers OTLP over HTTP on a port of its own."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self.exports = 0
        """Requests that have brought spans."""

    @property
    def environment(self) -> dict[str, str]:
        """What makes a service send its spans here."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                await reader.readexactly(int(length[1]) if length else 0)
                self.exports += 1
                writer.write(_OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the service has ended
        finally:
            writer.close()
