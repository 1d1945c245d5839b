"""Where `headrace dead-letters` finds them: in the database itself, or behind the HTTP API of a deployment."""

from __future__ import annotations

import base64
import getpass
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote
from uuid import UUID

import msgspec

from headrace.cli.api import PAGE, Api, open_source
from headrace.database.pool import Pool
from headrace.dead_letters import shown
from headrace.dead_letters.decisions import Act, Decision, Progress, Refused, decide, decide_many
from headrace.dead_letters.edits import Edit, edit
from headrace.dead_letters.search import Filter, Place, find, groups, read, unknown
from headrace.errors import ConfigurationError, EventError
from headrace.loading import find_platform, load_app

DeadLetter = dict[str, Any]
"""A dead letter as `GET /dead-letters` shows it; with `record_key`, `value` and `headers` if it was read alone."""


class Source(Protocol):
    """Finds, edits and decides dead letters, wherever they are."""

    def find(self, wanted: Filter) -> AsyncIterator[DeadLetter]:
        """Yield dead letters, the newest first."""
        ...

    async def groups(self, wanted: Filter, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Return the largest groups by error, and how many letters all groups have."""
        ...

    async def read(self, identity: UUID) -> DeadLetter:
        """Return one with its record. Raises: ConfigurationError (there is none)."""
        ...

    async def decide(self, identity: UUID, decision: Decision, why: str | None) -> str | None:
        """Decide about one; return why not, or None if it is done."""
        ...

    def decide_many(self, wanted: Filter, decision: Decision, why: str | None) -> AsyncIterator[int]:
        """Decide about the open ones that match, in the order of the log; yield after each step how many it took."""
        ...

    async def edit(self, identity: UUID, wanted: Edit, why: str | None, app: str | None) -> str | None:
        """Edit one that is open; return why not, or None if it is done. `app` declares the event types."""
        ...


class DatabaseSource:
    """Reads and decides in Postgres, for every service there; the owner of the partition acts on a decision.

    A subscription is shown by its group (`shop.wallets`), since the database holds those of several services. Who acts
    is the user of this machine.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, wanted: Filter) -> AsyncIterator[DeadLetter]:
        """Yield them page by page, so that not all are in memory at once."""
        after: Place | None = None
        while True:
            async with self._pool.acquire() as connection:
                rows = await find(connection, wanted, after, PAGE)
            for row in rows:
                yield _plain(shown.summary(row, row["subscription"]))
            if len(rows) < PAGE:
                return
            after = Place(rows[-1]["created_at"], rows[-1]["id"])

    async def groups(self, wanted: Filter, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Count in the database."""
        async with self._pool.acquire() as connection:
            rows = await groups(connection, wanted, limit)
        return [_plain(shown.group(row, row["subscription"])) for row in rows], rows[0]["total"] if rows else 0

    async def read(self, identity: UUID) -> DeadLetter:
        """Return one with its record."""
        async with self._pool.acquire() as connection:
            row = await read(connection, identity)
        if row is None:
            raise ConfigurationError(unknown(identity))
        return _plain(shown.summary(row, row["subscription"]) | shown.record(row))

    async def decide(self, identity: UUID, decision: Decision, why: str | None) -> str | None:
        """Decide about one that is open."""
        async with self._pool.acquire() as connection:
            decided = await decide(connection, identity, decision, Act(user(), why))
        return decided.why if isinstance(decided, Refused) else None

    async def decide_many(self, wanted: Filter, decision: Decision, why: str | None) -> AsyncIterator[int]:
        """Decide step by step, each in a statement of its own."""
        after: Progress | None = None
        while True:
            async with self._pool.acquire() as connection:
                step = await decide_many(connection, wanted, decision, Act(user(), why), after, PAGE)
            yield step.decided.total()
            if step.next is None:
                return
            after = step.next

    async def edit(self, identity: UUID, wanted: Edit, why: str | None, app: str | None) -> str | None:
        """Edit one of the service that the application declares. Raises: ConfigurationError (no application)."""
        if app is None:
            raise ConfigurationError(
                "an edit is checked against the event type: name the application that declares it with --app "
                "MODULE:APP, or ask a running deployment with --url."
            )
        registry = find_platform(load_app(app)).registry
        registry.complete()
        async with self._pool.acquire() as connection:
            try:
                edited = await edit(connection, identity, wanted, Act(user(), why), registry)
            except EventError as error:
                return str(error)
        return edited.why if isinstance(edited, Refused) else None


class HttpSource:
    """Asks a running deployment."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def find(self, wanted: Filter) -> AsyncIterator[DeadLetter]:
        """Yield them page by page."""
        asked = _query(wanted) | {"limit": PAGE}
        while True:
            page = await self._api.ask("GET", "/dead-letters", asked)
            for each in page["dead_letters"]:
                yield each
            if page["next"] is None:
                return
            asked["cursor"] = page["next"]

    async def groups(self, wanted: Filter, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Ask for the counts."""
        answer = await self._api.ask("GET", "/dead-letters/groups", _query(wanted) | {"limit": min(limit, PAGE)})
        return answer["groups"], answer["total"]

    async def read(self, identity: UUID) -> DeadLetter:
        """Return one with its record."""
        return await self._api.ask("GET", f"/dead-letters/{identity}")

    async def decide(self, identity: UUID, decision: Decision, why: str | None) -> str | None:
        """Decide about one that is open."""
        return await self._post(f"/dead-letters/{identity}/{quote(decision)}", {"why": why}, refusals=(404, 409))

    async def decide_many(self, wanted: Filter, decision: Decision, why: str | None) -> AsyncIterator[int]:
        """Decide step by step, each with a request of its own."""
        where = _where(wanted)
        cursor: str | None = None
        while True:
            body = {"where": where, "why": why, "limit": PAGE, "cursor": cursor}
            answer = await self._api.ask("POST", f"/dead-letters/{quote(decision)}", body=body)
            yield answer["decided"]
            cursor = answer["next"]
            if cursor is None:
                return

    async def edit(self, identity: UUID, wanted: Edit, why: str | None, app: str | None) -> str | None:
        """Edit one that is open; the deployment knows the event types."""
        if wanted.data is not None:
            given: dict[str, object] = {"data": msgspec.Raw(wanted.data)}
        else:
            given = {"value_base64": base64.b64encode(wanted.value or b"").decode()}
        return await self._post(f"/dead-letters/{identity}/edit", given | {"why": why}, refusals=(404, 409, 422))

    async def _post(self, path: str, body: dict[str, object], refusals: tuple[int, ...]) -> str | None:
        answer = await self._api.ask("POST", path, body=body, refusals=refusals)
        return str(answer["detail"]) if "detail" in answer else None


def open_letters(url: str | None, api_key_file: Path | None) -> AbstractAsyncContextManager[Source]:
    """Return the source that the options mean, opened."""
    return open_source(url, api_key_file, HttpSource, DatabaseSource)


def _where(wanted: Filter) -> dict[str, object]:
    """Return the filter as the API takes it in a body."""
    given = {name: value for name, value in wanted._asdict().items() if value is not None}
    given.pop("is_open", None)
    return dict(msgspec.to_builtins(given))


def _query(wanted: Filter) -> dict[str, object]:
    """Return the filter as the API takes it in an address."""
    states = {True: "open", False: "decided", None: "all"}
    return _where(wanted) | {"state": states[wanted.is_open]}


def user() -> str:
    """Return who calls this command, as far as the machine knows."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        name = "somebody"
    return f"{name}@{socket.gethostname()}"


def _plain(shown: dict[str, Any]) -> DeadLetter:
    """Return what the API's JSON would hold: times and ids as text."""
    return dict(msgspec.to_builtins(shown))
