"""Where `headrace dead-letters` finds them: in the database itself, or behind the HTTP API of a deployment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen
from uuid import UUID

import asyncpg
import msgspec

from headrace.errors import ConfigurationError
from headrace.queries.dead_letters import DECIDE, LIST, ONE, Decision, record, summary

PAGE = 500
"""The most that the API returns at once."""
TIMEOUT_SECONDS = 30.0

DeadLetter = dict[str, Any]
"""A dead letter as `GET /dead-letters` shows it; with `record_key`, `value` and `headers` where one was read."""


class Source(Protocol):
    """Dead letters, wherever they are."""

    def find(self, subscription: str | None, reason: str | None, *, is_open: bool) -> AsyncIterator[DeadLetter]:
        """Yield dead letters, the newest first; `is_open` leaves out the decided ones."""
        ...

    async def read(self, identity: UUID) -> DeadLetter:
        """Return one with its record. Raises: ConfigurationError (there is none)."""
        ...

    async def decide(self, identity: UUID, decision: Decision) -> str | None:
        """Decide about one; return why not, or None where it is done."""
        ...


class DatabaseSource:
    """Reads and decides in Postgres; the owner of the partition acts on it."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def find(self, subscription: str | None, reason: str | None, *, is_open: bool) -> AsyncIterator[DeadLetter]:
        """Yield them page by page, so that none has to hold all."""
        created_at = last = None
        while True:
            rows = await self._pool.fetch(LIST, subscription, reason, is_open or None, created_at, last, PAGE)
            for row in rows:
                yield _plain(summary(row))
            if len(rows) < PAGE:
                return
            created_at, last = rows[-1]["created_at"], rows[-1]["id"]

    async def read(self, identity: UUID) -> DeadLetter:
        """Return one with its record."""
        row = await self._pool.fetchrow(ONE, identity)
        if row is None:
            raise ConfigurationError(f"there is no dead letter {identity}.")
        return _plain(summary(row) | record(row))

    async def decide(self, identity: UUID, decision: Decision) -> str | None:
        """Decide about one that is open."""
        if await self._pool.fetchrow(DECIDE, identity, decision) is not None:
            return None
        row = await self._pool.fetchrow(ONE, identity)
        if row is None:
            return f"there is no dead letter {identity}."
        return f"the dead letter {identity} was decided at {row['decided_at'].isoformat()}: {row['decision']}."


class HttpSource:
    """Asks a running deployment, with its API key where it wants one."""

    def __init__(self, url: str, api_key: str | None) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ConfigurationError(f"--url {url}: write the address of a deployment, such as http://127.0.0.1:8000.")
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def find(self, subscription: str | None, reason: str | None, *, is_open: bool) -> AsyncIterator[DeadLetter]:
        """Yield them page by page."""
        asked = {"subscription": subscription, "reason": reason, "limit": PAGE, "state": "open" if is_open else "all"}
        while True:
            query = urlencode({name: value for name, value in asked.items() if value is not None})
            page = await self._ask("GET", f"/dead-letters?{query}")
            for each in page["dead_letters"]:
                yield each
            if page["next"] is None:
                return
            asked["cursor"] = page["next"]

    async def read(self, identity: UUID) -> DeadLetter:
        """Return one with its record."""
        return await self._ask("GET", f"/dead-letters/{identity}")

    async def decide(self, identity: UUID, decision: Decision) -> str | None:
        """Decide about one that is open."""
        answer = await self._ask("POST", f"/dead-letters/{identity}/{quote(decision)}", refusals=(404, 409))
        return str(answer["detail"]) if "detail" in answer else None

    async def _ask(self, method: str, path: str, refusals: tuple[int, ...] = ()) -> dict[str, Any]:
        """Return the JSON of an answer, or of one of the named refusals. Raises: ConfigurationError (any other)."""
        request = Request(self._url + path, method=method, headers=self._headers)  # noqa: S310 - http or https, checked
        try:
            return dict(json.loads(await asyncio.to_thread(_read, request)))
        except HTTPError as error:
            body = _problem(error)
            if error.code in refusals:
                return body
            key = "; name a file with an API key: --api-key-file" if error.code == 401 else ""
            raise ConfigurationError(
                f"{self._url} answered {error.code}: {body['detail'].rstrip('.')}{key}."
            ) from error
        except (URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise ConfigurationError(
                f"--url {self._url} does not answer: {reason}; is the platform running?"
            ) from error
        except ValueError as error:
            raise ConfigurationError(f"--url {self._url} is no Headrace: its answer is not JSON.") from error


def _read(request: Request) -> bytes:
    with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        return bytes(answer.read())


def _problem(error: HTTPError) -> dict[str, Any]:
    try:
        body = json.loads(error.read())
        return {**body, "detail": str(body.get("detail") or error.reason)}
    except ValueError:
        return {"detail": str(error.reason)}


def _plain(shown: dict[str, Any]) -> DeadLetter:
    """Return what the API's JSON would hold: times and ids as text."""
    return dict(msgspec.to_builtins(shown))
