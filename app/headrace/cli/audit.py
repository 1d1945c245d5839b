"""`headrace audit`: do the tables keep the platform's promises?"""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, Protocol
from urllib.parse import quote

import msgspec
import typer

from headrace.audit.findings import shown
from headrace.audit.record import audit_and_record
from headrace.audit.snapshot import groups
from headrace.cli.api import Api, KeyFile, Url, open_source
from headrace.cli.output import count_of, harmless, stdout, table
from headrace.database.pool import Pool
from headrace.errors import ConfigurationError
from headrace.settings import load_settings

Result = dict[str, Any]
"""A report as `POST /subscriptions/{name}/audit` answers it."""


class Source(Protocol):
    """Audits subscriptions, wherever they are."""

    async def audit(self, name: str | None) -> list[Result]:
        """Return the report of each subscription of the name, or of all. Raises: ConfigurationError (there is none)."""
        ...


class DatabaseSource:
    """Compares the tables itself."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def audit(self, name: str | None) -> list[Result]:
        """A name stands for its group as well, whatever the service is."""
        window_ids = load_settings().engine.dedupe_window_ids
        async with self._pool.acquire() as connection:
            known = await groups(connection)
            chosen = [group for group in known if name in (None, group, group.partition(".")[2])]
            if name is not None and not chosen:
                there = ", ".join(known) or "none"
                raise ConfigurationError(f"no subscription {name!r} has claims in the database; there are: {there}.")
            reports = [await audit_and_record(connection, group, window_ids) for group in chosen]
        return [dict(msgspec.to_builtins(shown(report, report.group))) for report in reports]


class HttpSource:
    """Asks a running deployment."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def audit(self, name: str | None) -> list[Result]:
        """Ask for one after the other."""
        if name is None:
            known = await self._api.ask("GET", "/subscriptions")
            names = [each["name"] for each in known["subscriptions"]]
        else:
            names = [name]
        return [await self._api.ask("POST", f"/subscriptions/{quote(each, safe='')}/audit") for each in names]


def audit(
    subscription: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this one: its name, or in a database SERVICE.NAME.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Compare claims, ledger, lanes, dead letters and states; exit code 1 if a promise is broken."""

    async def work() -> list[Result]:
        opened: AbstractAsyncContextManager[Source] = open_source(url, api_key_file, HttpSource, DatabaseSource)
        async with opened as source:
            return await source.audit(subscription)

    results = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps(results, indent=2))
    else:
        _print(results)
    if not all(result["clean"] for result in results):
        raise typer.Exit(1)


def _print(results: list[Result]) -> None:
    shown = table("SUBSCRIPTION", "PARTITIONS", "LEDGER ROWS", "EVENT IDS", "FINDINGS", right=("FINDINGS",))
    for result in results:
        examined = result["examined"]
        counts = (examined["partitions"], examined["ledger_rows"], examined["event_ids"], len(result["findings"]))
        shown.add_row(harmless(result["name"]), *(str(count) for count in counts))
    stdout.print(shown if results else "no subscription has claims yet")
    for result in results:
        for finding in result["findings"]:
            stdout.print(harmless(f"{finding['check']}: {_where(result['name'], finding)}: {finding['detail']}"))
            stdout.print(f"    {finding['advice']}")
    found = sum(len(result["findings"]) for result in results)
    stdout.print(f"{count_of(found, 'broken promise')} found" if found else "every promise holds")


def _where(name: str, finding: dict[str, Any]) -> str:
    if finding["partition"] is None:
        return name
    return f"{name} {finding['topic'] or 'partition'}/{finding['partition']}"
