"""A client for one address over HTTP/1.1: kept connections, no redirects, every failure as one exception."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import httptools

from headrace.errors import ConfigurationError

TIMEOUT_SECONDS = 15.0
"""Longer than HEADRACE_INGEST_TIMEOUT_SECONDS, after which the platform answers by itself."""


def address_parts(url: str) -> SplitResult:
    """Return the parts of a deployment's address. Raises: ConfigurationError (it is none, or holds a password)."""
    if "@" in url:
        raise ConfigurationError(
            "the address of a deployment holds no user and no password; name a file with an API key: --api-key-file."
        )
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").encode("idna"), parts.port
        is_right = parts.scheme in ("http", "https") and bool(host) and not parts.query and not parts.fragment
    except ValueError:  # no port, no IPv6 address, or no name that DNS could hold
        is_right = False
    if not is_right or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(f"{url!r} is not the address of a deployment, such as http://127.0.0.1:8000.")
    return parts


class NoAnswerError(Exception):
    """The request went out, or not, and no answer came: whether it had an effect is unknown."""


class NotSentError(NoAnswerError):
    """The request did not go out: there was no connection, so it had no effect."""


class Answer(NamedTuple):
    """What the target said."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class HttpClient:
    """Asks one target over at most `connections` connections; a request waits while all of them are taken."""

    def __init__(self, url: str, connections: int, api_key: str | None = None) -> None:
        """Raises: ConfigurationError (not an address of HTTP)."""
        parts = address_parts(url)
        self.url = url.rstrip("/")
        self._host = parts.hostname or ""
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self.path = parts.path.rstrip("/")
        key = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._head = f"Host: {parts.netloc}\r\nUser-Agent: headrace-load\r\n{key}"
        self._free: deque[_Connection] = deque()
        self._room = asyncio.Semaphore(connections)
        self._answered_at = 0.0
        """When the last answer came, by the loop's clock."""

    async def get(self, path: str) -> Answer:
        """Ask for a path. Raises: NoAnswerError."""
        return await self.ask(f"GET {self.path}{path} HTTP/1.1\r\n{self._head}\r\n".encode())

    async def post(self, path: str, media_type: str, body: bytes) -> Answer:
        """Post a body. Raises: NoAnswerError."""
        head = f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        return await self.ask(f"POST {self.path}{path} HTTP/1.1\r\n{self._head}{head}".encode() + body)

    async def ask(self, request: bytes) -> Answer:
        """Send the bytes of a request and return the answer.

        It waits for a free connection as long as the target answers others. Raises: NoAnswerError, NotSentError.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        async with self._room:
            if clock() - max(began, self._answered_at) > TIMEOUT_SECONDS:
                raise NotSentError(f"not sent, since nothing was answered for {TIMEOUT_SECONDS:g} s")
            connection = None
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    connection = await self._connection()
                    answer = await connection.ask(request)
            except TimeoutError:
                error = f"no answer within {TIMEOUT_SECONDS:g} s"
                raise (NoAnswerError if connection is not None else NotSentError)(error) from None
            except OSError as error:
                raise (NoAnswerError if connection is not None else NotSentError)(_named(error)) from error
            finally:
                if connection is not None and not connection.give_back(self._free):
                    connection.close()
            self._answered_at = clock()
            return answer

    def close(self) -> None:
        """Close what is kept."""
        while self._free:
            self._free.pop().close()

    async def _connection(self) -> _Connection:
        while self._free:
            kept = self._free.pop()  # the one that was used last: the others may grow old and be closed by the target
            if kept.is_open:
                return kept
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context() if self._is_tls else None
        _, made = await loop.create_connection(_Connection, self._host, self._port, ssl=context)
        return made


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._is_kept = True

    async def ask(self, request: bytes) -> Answer:
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def give_back(self, free: deque[_Connection]) -> bool:
        """Return False if no further request can use it."""
        if not self.is_open or not self._is_kept or self._waiting is None or not self._waiting.done():
            return False
        if self._waiting.cancelled():
            return False
        free.append(self)
        return True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment] # uvloop's transports are of its own class
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._fail(ConnectionResetError("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._is_kept = False
            self._fail(ConnectionError(f"the answer is not HTTP: {error}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._is_kept = bool(self._parser.should_keep_alive())
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Answer(self._parser.get_status_code(), self._headers, self._body))

    def _fail(self, error: OSError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


def _named(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "connection lost"
    return error.strerror or str(error) or type(error).__name__
