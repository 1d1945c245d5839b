"""Asks a running deployment over HTTP, or else the database, for the commands that take --url."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

import msgspec
import typer

from headrace.cli.output import harmless
from headrace.connections import current_database
from headrace.database.pool import Pool
from headrace.errors import ConfigurationError
from headrace.load.http_client import address_parts
from headrace.settings import load_settings

S = TypeVar("S")

ADVICE = "ask it instead: pass --url http://127.0.0.1:8000"
"""What to do if a platform holds the embedded database."""
PAGE = 500
"""The most that the API returns at once."""
TIMEOUT_SECONDS = 30.0

Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Ask a running deployment, such as http://127.0.0.1:8000, not the database."),
]
KeyFile = Annotated[Path | None, typer.Option(metavar="FILE", help="A file that holds the API key for --url.")]


class Api:
    """Asks the HTTP API of a running deployment, with its API key if it wants one."""

    def __init__(self, url: str, api_key: str | None) -> None:
        """Raises: ConfigurationError (the address is not one of HTTP)."""
        address_parts(url)
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def ask(
        self,
        method: str,
        path: str,
        query: dict[str, object] | None = None,
        refusals: tuple[int, ...] = (),
        *,
        body: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        """Return the JSON of an answer, or of one of the named refusals.

        Members of the query that are None are left out. Raises: ConfigurationError (any other answer, or none).
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        address = f"{self._url}{path}?{urlencode(given)}" if given else f"{self._url}{path}"
        content = msgspec.json.encode(body) if body is not None else None
        headers = self._headers | ({"Content-Type": "application/json"} if body is not None else {})
        request = Request(address, content, headers, method=method)  # noqa: S310 - http or https, checked
        try:
            return _Answer(self._url, json.loads(await _answered(request)))
        except HTTPError as error:
            with error:
                problem = _problem(error)
            if error.code in refusals:
                return problem
            key = "; name a file with an API key: --api-key-file" if error.code == 401 else ""
            raise ConfigurationError(
                f"{self._url} answered {error.code}: {problem['detail'].rstrip('.')}{key}."
            ) from error
        except (URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise ConfigurationError(
                f"--url {self._url} does not answer: {reason}; is the platform running?"
            ) from error
        except (HTTPException, ValueError, TypeError) as error:
            raise ConfigurationError(f"--url {self._url} is no Headrace: its answer is no JSON object.") from error


class _Answer(dict[str, Any]):
    """An answer. Another service may answer with JSON as well: what is missing then is a sentence."""

    def __init__(self, url: str, members: Any) -> None:
        super().__init__(members)
        self._url = url

    def __missing__(self, name: str) -> Any:
        raise ConfigurationError(f"--url {self._url} is no Headrace: its answer has no {name!r}.")


class _NoRedirects(HTTPRedirectHandler):
    """Follows none: urllib would send the API key along, whatever machine it leads to."""

    def redirect_request(self, *_: Any) -> None:
        return None


@asynccontextmanager
async def open_source(
    url: str | None, api_key_file: Path | None, over_http: Callable[[Api], S], of_database: Callable[[Pool], S]
) -> AsyncIterator[S]:
    """Yield what a command asks: the deployment that the options name, or else the database of the settings.

    Raises: ConfigurationError (the file of the key, the settings, the database), BadParameter (the options do not go
    together).
    """
    api = api_of(url, api_key_file)
    if api is not None:
        yield over_http(api)
        return
    async with current_database(load_settings(), advice=ADVICE) as pool:
        yield of_database(pool)


def api_of(url: str | None, api_key_file: Path | None) -> Api | None:
    """Return the API that the options name; None if they mean the database.

    Raises: ConfigurationError (the file of the key), BadParameter (the options do not go together).
    """
    if url is not None:
        return Api(url, read_key(api_key_file))
    if api_key_file is not None:
        raise typer.BadParameter("--api-key-file goes with --url.")
    return None


def read_key(file: Path | None) -> str | None:
    """Return the key that a file holds; None without a file. Raises: ConfigurationError."""
    if file is None:
        return None
    try:
        key = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--api-key-file {file} cannot be read: {error}.") from error
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigurationError(f"--api-key-file {file} holds no key: one line of plain characters.")
    return key


async def _answered(request: Request) -> bytes:
    """Return the body of an answer. Cancel: safe; nobody waits for the thread, so that Ctrl-C ends the command."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    def tell(body: bytes | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(body or b"")

    def ask() -> None:
        body, fault = None, None
        try:
            body = _read(request)
        except Exception as error:
            fault = error
        with suppress(RuntimeError):  # the loop is closed: the command has ended
            loop.call_soon_threadsafe(tell, body, fault)

    threading.Thread(target=ask, name="headrace-ask", daemon=True).start()
    return await answer


def _read(request: Request) -> bytes:
    with build_opener(_NoRedirects).open(request, timeout=TIMEOUT_SECONDS) as answer:
        return bytes(answer.read())


def _problem(error: HTTPError) -> dict[str, Any]:
    if (place := error.headers.get("Location")) is not None and 300 <= error.code < 400:
        return {"detail": f"it leads to {harmless(place)}, and no redirect is followed; pass that as --url"}
    try:
        body = json.loads(error.read())
        return {**body, "detail": str(body.get("detail") or error.reason)}
    except (ValueError, TypeError, HTTPException):
        return {"detail": str(error.reason)}
