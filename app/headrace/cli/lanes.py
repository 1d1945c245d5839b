"""`headrace lanes`: the keys that wait for a retry, and a retry without waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol
from urllib.parse import quote

import msgspec
import typer

from headrace.cli.api import PAGE, Api, KeyFile, Url, open_source
from headrace.cli.output import age, count_of, harmless, record_text, stderr, stdout, table
from headrace.database.pool import Pool
from headrace.queries.lane_store import Filter, Place, find, place_of, retry, shown

lanes = typer.Typer(help="Keys whose events wait for a retry: list them, retry them now.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="Its name, or in a database SERVICE.NAME.")]
Key = Annotated[str | None, typer.Option(help="Only the lane of this key.")]
Handler = Annotated[str | None, typer.Option(help="Only keys whose first event this handler failed on.")]
ErrorType = Annotated[str | None, typer.Option(help="Only keys whose first event failed so, such as KeyError.")]
Held = Annotated[bool, typer.Option("--held", help="Only keys that are held until an operator acts.")]
Lane = dict[str, Any]
"""A lane as `GET /subscriptions/{name}/lanes` shows it."""


class Source(Protocol):
    """Finds and retries lanes, wherever they are."""

    def find(self, wanted: Filter) -> AsyncIterator[Lane]:
        """Yield lanes by partition and key."""
        ...

    async def retry(self, wanted: Filter) -> int:
        """Make the lanes due now; return how many they are."""
        ...


class DatabaseSource:
    """Reads and changes lanes in Postgres; the owner of the partition acts on it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, wanted: Filter) -> AsyncIterator[Lane]:
        """Yield them page by page."""
        after: Place | None = None
        while True:
            async with self._pool.acquire() as connection:
                rows = await find(connection, wanted, after, PAGE)
            for row in rows:
                yield dict(msgspec.to_builtins(shown(row, row["subscription"])))
            if len(rows) < PAGE:
                return
            after = place_of(rows[-1])

    async def retry(self, wanted: Filter) -> int:
        """Make them due now."""
        async with self._pool.acquire() as connection:
            return await retry(connection, wanted)


class HttpSource:
    """Asks a running deployment."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def find(self, wanted: Filter) -> AsyncIterator[Lane]:
        """Yield them page by page."""
        asked = _query(wanted) | {"limit": PAGE}
        while True:
            page = await self._api.ask("GET", f"{_path(wanted)}/lanes", asked)
            for each in page["lanes"]:
                yield each
            if page["next"] is None:
                return
            asked["cursor"] = page["next"]

    async def retry(self, wanted: Filter) -> int:
        """Make them due now."""
        return int((await self._api.ask("POST", f"{_path(wanted)}/lanes/retry", _query(wanted)))["lanes"])


def _path(wanted: Filter) -> str:
    return f"/subscriptions/{quote(wanted.subscription or '', safe='')}"


def _query(wanted: Filter) -> dict[str, object]:
    held = str(wanted.is_held).lower() if wanted.is_held is not None else None
    return {"key": wanted.key, "handler": wanted.handler, "error_type": wanted.error_type, "held": held}


@lanes.command("list")
def list_lanes(
    subscription: Name,
    key: Key = None,
    handler: Handler = None,
    error_type: ErrorType = None,
    held: Held = False,
    limit: Annotated[int, typer.Option(min=1, help="The most to print.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Print the parked keys: when each runs next, and why its first event failed."""
    wanted = Filter(None, subscription, key, handler, error_type, True if held else None)

    async def work() -> list[Lane]:
        found: list[Lane] = []
        async with _source(url, api_key_file) as source:
            async for lane in source.find(wanted):
                found.append(lane)
                if len(found) > limit:
                    break
        return found

    found = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps(found[:limit], indent=2))
        return
    printed = table("SUBSCRIPTION", "KEY", "EVENTS", "ATTEMPTS", "NEXT ATTEMPT", "PARKED", "TYPE", "POSITION", "ERROR")
    for lane in found[:limit]:
        printed.add_row(
            harmless(lane["subscription"]),
            harmless(record_text(lane, "key")),
            str(lane["events"]),
            str(lane["attempts"]),
            _next(lane),
            age(datetime.fromisoformat(lane["parked_at"])),
            harmless(lane["head"]["type"] or "-"),
            _position(lane["head"]),
            harmless(lane["error"])[:200],
        )
    stdout.print(printed if found else "no key is parked")
    if len(found) > limit:
        stderr.print(f"there are more than {limit}: raise --limit, or narrow with --key, --handler and --error-type")


@lanes.command("retry")
def retry_lanes(
    subscription: Name,
    key: Key = None,
    handler: Handler = None,
    error_type: ErrorType = None,
    held: Held = False,
    every: Annotated[bool, typer.Option("--all", help="Every lane of the subscription.")] = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Run the parked events of one key, of a handler, of an error, or of all, without waiting any longer."""
    wanted = Filter(None, subscription, key, handler, error_type, True if held else None)
    if (wanted == Filter(None, subscription)) != every:
        raise typer.BadParameter("say which with --key, --handler, --error-type or --held, or pass --all.")

    async def work() -> int:
        async with _source(url, api_key_file) as source:
            return await source.retry(wanted)

    count = asyncio.run(work())
    stdout.print(f"{count_of(count, 'lane')} to be retried by the owner")
    if not count and not every:
        raise typer.Exit(1)


def _source(url: str | None, api_key_file: Path | None) -> AbstractAsyncContextManager[Source]:
    return open_source(url, api_key_file, HttpSource, DatabaseSource)


def _next(lane: Lane) -> str:
    if lane["held"]:
        return "held"
    seconds = (datetime.fromisoformat(lane["next_attempt_at"]) - datetime.now(UTC)).total_seconds()
    return "now" if seconds <= 0 else f"in {seconds:.0f} s"


def _position(head: dict[str, Any]) -> str:
    return f"{head['topic']}/{head['partition']}/{head['offset']}"
