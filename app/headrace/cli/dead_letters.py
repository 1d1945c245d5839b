"""`headrace dead-letters`: what was given up on, and the decision about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.progress import track

from headrace.cli.api import KeyFile, Url, open_source
from headrace.cli.dead_letter_sources import DatabaseSource, DeadLetter, HttpSource, Source
from headrace.cli.output import age, count_of, harmless, record_text, stderr, stdout, table
from headrace.dead_letters.decisions import Decision

dead_letters = typer.Typer(
    help="What was given up on: list it, look at it, replay or discard it.", no_args_is_help=True
)

Subscription = Annotated[
    str | None, typer.Option(help="Those of one subscription: its name, or in a database SERVICE.NAME.")
]
Reason = Annotated[str | None, typer.Option(help="Those of one reason, such as decode, schema or gave_up.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Ids = Annotated[list[UUID] | None, typer.Argument(metavar="[ID]...", help="The dead letters to decide about.")]
AllOpen = Annotated[bool, typer.Option("--all-open", help="All open ones that --subscription and --reason allow.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@dead_letters.command("list")
def list_dead_letters(
    subscription: Subscription = None,
    reason: Reason = None,
    every: Annotated[bool, typer.Option("--all", help="The decided ones as well.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most to print.")] = 100,
    as_json: AsJson = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Print dead letters, the newest first: open ones, or all."""

    async def work() -> list[DeadLetter]:
        async with _source(url, api_key_file) as source:
            return await _take(source.find(subscription, reason, is_open=not every), limit + 1)

    found = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps(found[:limit], indent=2))
        return
    shown = table(
        "ID", "SUBSCRIPTION", "POSITION", "REASON", "TYPE", "KEY", "AGE", *(["DECISION"] if every else []), "ERROR"
    )
    for letter in found[:limit]:
        shown.add_row(
            letter["id"],
            letter["subscription"],
            _position(letter),
            letter["reason"],
            harmless(letter["type"] or "-"),
            harmless(record_text(letter, "key")),
            _age(letter),
            *([letter["decision"] or "open"] if every else []),
            harmless(letter["error"])[:200],
        )
    stdout.print(shown if found else "there is no dead letter" if every else "there is no open dead letter")
    if len(found) > limit:
        stderr.print(f"there are more than {limit}: raise --limit, or narrow with --subscription and --reason")


@dead_letters.command()
def show(
    identity: Annotated[UUID, typer.Argument(metavar="ID")],
    as_json: AsJson = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Print one dead letter with its record; bytes that a terminal would act on are escaped."""

    async def work() -> DeadLetter:
        async with _source(url, api_key_file) as source:
            return await source.read(identity)

    letter = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps(letter, indent=2))
        return
    shown = table("", "")
    shown.show_header = False
    for name, value in (
        ("id", letter["id"]),
        ("subscription", letter["subscription"]),
        ("position", _position(letter)),
        ("reason", letter["reason"]),
        ("error", letter["error"]),
        ("handler", letter["handler"] or "-"),
        ("attempts", letter["attempts"]),
        ("type", letter["type"] or "-"),
        ("event", f"{letter['event_id']} of {letter['source']}" if letter["event_id"] else "-"),
        ("key", record_text(letter, "key")),
        ("age", f"{_age(letter)} (since {letter['created_at']})"),
        ("decision", f"{letter['decision']} at {letter['decided_at']}" if letter["decision"] else "open"),
        ("record key", record_text(letter, "record_key")),
        *((f"header {header['name']}", record_text(header, "value")) for header in letter["headers"]),
        ("value", record_text(letter, "value")),
    ):
        shown.add_row(harmless(name), harmless(value))
    stdout.print(shown)


@dead_letters.command()
def replay(
    ids: Ids = None,
    subscription: Subscription = None,
    reason: Reason = None,
    all_open: AllOpen = False,
    yes: Yes = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Run events again: each joins its key's lane, behind what waits there, with all its attempts."""
    _decide("replay", ids, (subscription, reason), all_open=all_open, yes=yes, url=url, api_key_file=api_key_file)


@dead_letters.command()
def discard(
    ids: Ids = None,
    subscription: Subscription = None,
    reason: Reason = None,
    all_open: AllOpen = False,
    yes: Yes = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Give events up; they stay visible as decided for HEADRACE_DEAD_LETTER_DAYS days."""
    _decide("discard", ids, (subscription, reason), all_open=all_open, yes=yes, url=url, api_key_file=api_key_file)


def _decide(
    decision: Decision,
    ids: Sequence[UUID] | None,
    filters: tuple[str | None, str | None],
    *,
    all_open: bool,
    yes: bool,
    url: str | None,
    api_key_file: Path | None,
) -> None:
    if bool(ids) == all_open:
        raise typer.BadParameter("name the dead letters by id, or pass --all-open.")
    if ids and any(filters):
        raise typer.BadParameter("--subscription and --reason go with --all-open, not with ids.")

    async def work() -> None:
        async with _source(url, api_key_file) as source:
            chosen = list(ids or [])
            if all_open:
                chosen = [UUID(letter["id"]) async for letter in source.find(*filters, is_open=True)]
            if not chosen:
                stdout.print("there is no open dead letter")
                return
            if not yes:
                typer.confirm(f"{decision.capitalize()} {count_of(len(chosen), 'dead letter')}?", abort=True, err=True)
            await _decide_all(source, chosen, decision)

    asyncio.run(work())


async def _decide_all(source: Source, chosen: Sequence[UUID], decision: Decision) -> None:
    shown = track(chosen, decision, console=stderr, transient=True, disable=len(chosen) < 2)
    refused = [why for identity in shown if (why := await source.decide(identity, decision)) is not None]
    for why in refused:
        stderr.print(harmless(why))
    done = len(chosen) - len(refused)
    stdout.print(
        f"{count_of(done, 'dead letter')} to be replayed by the owner"
        if decision == "replay"
        else f"{count_of(done, 'dead letter')} discarded"
    )
    if refused:
        raise typer.Exit(1)


def _source(url: str | None, api_key_file: Path | None) -> AbstractAsyncContextManager[Source]:
    return open_source(url, api_key_file, HttpSource, DatabaseSource)


async def _take(letters: AsyncIterator[DeadLetter], limit: int) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    async for letter in letters:
        found.append(letter)
        if len(found) == limit:
            break
    return found


def _position(letter: DeadLetter) -> str:
    return f"{letter['topic']}/{letter['partition']}/{letter['offset']}"


def _age(letter: DeadLetter) -> str:
    return age(datetime.fromisoformat(letter["created_at"]))
