"""`headrace dead-letters`: what was given up on, as a list, by error, and one by one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from headrace.cli.api import KeyFile, Url
from headrace.cli.dead_letter_decisions import discard, edit, replay
from headrace.cli.dead_letter_filter import filtered
from headrace.cli.dead_letter_sources import DeadLetter, open_letters
from headrace.cli.output import age, count_of, harmless, record_text, stderr, stdout, table
from headrace.dead_letters.search import Filter

dead_letters = typer.Typer(
    help="What was given up on: list it, look at it, edit it, replay or discard it.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Every = Annotated[bool, typer.Option("--all", help="The decided ones as well.")]


@dead_letters.command("list")
@filtered
def list_dead_letters(
    wanted: Filter,
    every: Every = False,
    limit: Annotated[int, typer.Option(min=1, help="The most to print.")] = 100,
    as_json: AsJson = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Print dead letters, the newest first: open ones, or all."""

    async def work() -> list[DeadLetter]:
        async with open_letters(url, api_key_file) as source:
            return await _take(source.find(_of_state(wanted, every)), limit + 1)

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


@dead_letters.command("groups")
@filtered
def list_groups(
    wanted: Filter,
    every: Every = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Print how many dead letters there are of each error, the most first."""

    async def work() -> tuple[list[dict[str, Any]], int]:
        async with open_letters(url, api_key_file) as source:
            return await source.groups(_of_state(wanted, every), 100)

    groups, total = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps({"groups": groups, "total": total}, indent=2))
        return
    shown = table(
        "LETTERS", "SUBSCRIPTION", "REASON", "TYPE", "HANDLER", "ERROR TYPE", "FIRST", "LAST", "ERROR",
        right=("LETTERS",),
    )  # fmt: skip
    for group in groups:
        names = (group[name] or "-" for name in ("subscription", "reason", "type", "handler", "error_type"))
        times = (age(datetime.fromisoformat(group[name])) for name in ("first_at", "last_at"))
        shown.add_row(str(group["letters"]), *map(harmless, names), *times, harmless(group["error"])[:200])
    stdout.print(shown if groups else "there is no dead letter" if every else "there is no open dead letter")
    rest = total - sum(group["letters"] for group in groups)
    if rest:
        stderr.print(f"{count_of(rest, 'dead letter')} more of rarer errors: narrow with --subscription or --type")


@dead_letters.command()
def show(
    identity: Annotated[UUID, typer.Argument(metavar="ID")],
    as_json: AsJson = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Print one dead letter with its record; bytes that a terminal would act on are escaped."""

    async def work() -> DeadLetter:
        async with open_letters(url, api_key_file) as source:
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
        ("error type", letter["error_type"] or "-"),
        ("handler", letter["handler"] or "-"),
        ("attempts", letter["attempts"]),
        ("type", letter["type"] or "-"),
        ("event", f"{letter['event_id']} of {letter['source']}" if letter["event_id"] else "-"),
        ("key", record_text(letter, "key")),
        ("age", f"{_age(letter)} (since {letter['created_at']})"),
        ("decision", f"{letter['decision']} at {letter['decided_at']}" if letter["decision"] else "open"),
        *((f"{done['did']} by {done['by']}", _done(done)) for done in letter["history"]),
        ("record key", record_text(letter, "record_key")),
        *((f"header {header['name']}", record_text(header, "value")) for header in letter["headers"]),
        ("value", record_text(letter, "value")),
        *([("edited value", record_text(letter, "edited_value"))] if letter["edited"] else []),
    ):
        shown.add_row(harmless(name), harmless(value))
    stdout.print(shown)


dead_letters.command()(edit)
dead_letters.command()(replay)
dead_letters.command()(discard)


def _of_state(wanted: Filter, every: bool) -> Filter:
    return wanted._replace(is_open=None if every else True)


async def _take(letters: AsyncIterator[DeadLetter], limit: int) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    async for letter in letters:
        found.append(letter)
        if len(found) == limit:
            break
    return found


def _done(done: dict[str, Any]) -> str:
    return f"{done['at']}: {done['why']}" if done["why"] else str(done["at"])


def _position(letter: DeadLetter) -> str:
    return f"{letter['topic']}/{letter['partition']}/{letter['offset']}"


def _age(letter: DeadLetter) -> str:
    return age(datetime.fromisoformat(letter["created_at"]))
