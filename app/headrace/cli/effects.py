"""`headrace effects`: calls to the outside that wait or have failed, and a retry without waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Protocol
from urllib.parse import quote

import typer

from headrace.cli.api import Api, KeyFile, Url, open_source
from headrace.cli.output import age, count_of, harmless, stdout, table
from headrace.database.pool import Pool
from headrace.effects.listing import Filter, find, retry

effects = typer.Typer(help="Calls to the outside that wait: list them, retry them now.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="Its name, or in a database SERVICE.NAME.")]
Key = Annotated[str | None, typer.Option(help="Only the calls of this key.")]


class Source(Protocol):
    """Finds and retries calls, wherever they are."""

    async def find(self, wanted: Filter, limit: int) -> list[dict[str, Any]]:
        """Return calls by partition and number."""
        ...

    async def retry(self, wanted: Filter) -> int:
        """Make failed calls due now; return how many they are."""
        ...


class DatabaseSource:
    """Reads and changes calls in Postgres; the owner of the partition acts on it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, wanted: Filter, limit: int) -> list[dict[str, Any]]:
        """Return them."""
        async with self._pool.acquire() as connection:
            return await find(connection, wanted, limit)

    async def retry(self, wanted: Filter) -> int:
        """Make them due now."""
        async with self._pool.acquire() as connection:
            return await retry(connection, wanted)


class HttpSource:
    """Asks a running deployment."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def find(self, wanted: Filter, limit: int) -> list[dict[str, Any]]:
        """Return them."""
        failed = str(wanted.has_failed).lower()
        asked: dict[str, object] = {"key": wanted.key, "failed": failed, "limit": limit}
        return list((await self._api.ask("GET", _path(wanted), asked))["effects"])

    async def retry(self, wanted: Filter) -> int:
        """Make them due now."""
        return int((await self._api.ask("POST", f"{_path(wanted)}/retry", {"key": wanted.key}))["effects"])


def _path(wanted: Filter) -> str:
    return f"/subscriptions/{quote(wanted.subscription, safe='')}/effects"


@effects.command("list")
def list_effects(
    subscription: Name,
    key: Key = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only calls that have failed and wait.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="The most to print.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Print the calls that are not done: since when, how often each has failed, and why."""

    async def work() -> list[dict[str, Any]]:
        async with _source(url, api_key_file) as source:
            return await source.find(Filter(subscription, key, failed), limit)

    found = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    printed = table("SUBSCRIPTION", "KEY", "TYPE", "POSITION", "STARTED", "ATTEMPTS", "NEXT ATTEMPT", "ERROR")
    for each in found:
        printed.add_row(
            harmless(each["subscription"]),
            harmless(each["key"]),
            harmless(each["type"] or "-"),
            harmless(f"{each['topic']}/{each['partition']}/{each['offset']}"),
            age(datetime.fromisoformat(each["started_at"])),
            str(each["attempts"]),
            _next(each),
            harmless(each["error"] or "-")[:200],
        )
    stdout.print(printed if found else "no call waits")


@effects.command("retry")
def retry_effects(
    subscription: Name,
    key: Key = None,
    every: Annotated[bool, typer.Option("--all", help="Every failed call of the subscription.")] = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Make the failed calls of one key, or all, without waiting any longer."""
    if (key is None) != every:
        raise typer.BadParameter("say which with --key, or pass --all.")

    async def work() -> int:
        async with _source(url, api_key_file) as source:
            return await source.retry(Filter(subscription, key))

    count = asyncio.run(work())
    stdout.print(f"{count_of(count, 'call')} to be made by the owner")
    if not count and not every:
        raise typer.Exit(1)


def _source(url: str | None, api_key_file: Path | None) -> AbstractAsyncContextManager[Source]:
    return open_source(url, api_key_file, HttpSource, DatabaseSource)


def _next(call: Mapping[str, Any]) -> str:
    if call["held"]:
        return "held"
    return call["next_attempt_at"] or "first"
