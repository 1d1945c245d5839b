"""What commands with --url say if nobody answers there, or somebody else does."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from headrace.cli import cli
from headrace.cli.api import Api
from headrace.errors import ConfigurationError
from headrace.load.http_client import HttpClient

Serve = Callable[[bytes], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer every request with the same bytes; returns the address."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(url: str, key: str | None = None) -> object:
    return asyncio.run(Api(url, key).ask("GET", "/subscriptions"))


def http(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.0 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1",
        "http://",
        "http://[bad",
        "http://h:port",
        "http://h:99999",
        "http://a b",
        "http://a..b",
        "http://h/ü",
    ],
)
def test_text_that_is_no_address_is_refused(url: str) -> None:
    for opened in (lambda: Api(url, None), lambda: HttpClient(url, 1)):
        with pytest.raises(ConfigurationError, match="is not the address of a deployment, such as http://127"):
            opened()


def test_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="--api-key-file") as refused:
        ask("http://ada:hunter2@127.0.0.1:8000")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "answer",
    [*map(http, (b"[1]", b'"ok"', b"1", b"null", b"<html>")), b"\x00no http\r\n\r\n", http(b"{}")[:-1]],
    ids=["list", "text", "number", "null", "html", "no HTTP", "half"],
)
def test_answer_that_is_no_json_object_is_a_sentence(serve: Serve, answer: bytes) -> None:
    with pytest.raises(ConfigurationError, match="is no Headrace: its answer is no JSON object"):
        ask(serve(answer))


@pytest.mark.parametrize("body", [b"[1]", b'"gone"', b"1", b"null", b"gone"])
def test_refusal_of_another_service_is_a_sentence(serve: Serve, body: bytes) -> None:
    with pytest.raises(ConfigurationError, match="answered 404: Gone"):
        ask(serve(http(body, b"404 Gone")))


@pytest.mark.parametrize(
    "words",
    ["lanes list x", "effects list x", "dead-letters list", "dead-letters groups", "audit", "explain x"],
)
def test_answer_of_another_service_is_a_sentence(serve: Serve, words: str) -> None:
    said = CliRunner().invoke(cli, [*words.split(), "--url", serve(http(b'{"status": "up"}'))])
    assert isinstance(said.exception, ConfigurationError)
    assert "is no Headrace: its answer has no '" in str(said.exception)


def test_no_redirect_is_followed_with_the_key(serve: Serve) -> None:
    elsewhere = serve(http(b"{}"))
    here = serve(b"HTTP/1.0 302 Found\r\nLocation: %b/subscriptions\r\n\r\n" % elsewhere.encode())
    with pytest.raises(
        ConfigurationError, match=f"answered 302: it leads to {elsewhere}/subscriptions, and no redirect"
    ):
        ask(here, "secret")


def test_interrupt_waits_for_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.cli.api.TIMEOUT_SECONDS", 3600.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def interrupted() -> None:
            asking = asyncio.create_task(Api(f"http://127.0.0.1:{silent.getsockname()[1]}", None).ask("GET", "/"))
            connection, _ = await asyncio.to_thread(silent.accept)
            asking.cancel()
            await asyncio.wait({asking})
            kept.append(connection)

        kept: list[socket.socket] = []
        asyncio.run(interrupted())
        kept[0].close()
