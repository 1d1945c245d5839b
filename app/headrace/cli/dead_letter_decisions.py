"""`headrace dead-letters edit`, `replay` and `discard`: what a person does with what was given up on."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.progress import Progress, track

from headrace.cli.api import KeyFile, Url
from headrace.cli.dead_letter_filter import filtered
from headrace.cli.dead_letter_sources import DeadLetter, Source, open_letters
from headrace.cli.output import count_of, harmless, stderr, stdout
from headrace.dead_letters.decisions import Decision
from headrace.dead_letters.edits import Edit
from headrace.dead_letters.search import Filter
from headrace.errors import ConfigurationError

Ids = Annotated[list[UUID] | None, typer.Argument(metavar="[ID]...", help="The dead letters to decide about.")]
AllOpen = Annotated[bool, typer.Option("--all-open", help="All open ones that the other options allow.")]
Why = Annotated[str | None, typer.Option("--why", help="Why you do it; it is kept with the letter, as is who you are.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Data = Annotated[
    typer.FileBinaryRead | None,
    typer.Option(metavar="FILE", help="The event's data, as JSON; - reads them from standard input."),
]
Value = Annotated[
    typer.FileBinaryRead | None,
    typer.Option(metavar="FILE", help="The record's whole value, for one that is no CloudEvent."),
]
App = Annotated[
    str | None,
    typer.Option(metavar="MODULE:APP", help="The application that declares the event type; not needed with --url."),
]


def edit(
    identity: Annotated[UUID, typer.Argument(metavar="ID")],
    data: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(metavar="FILE", help="The event's data, as JSON; - reads them from standard input."),
    ] = None,
    value: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(metavar="FILE", help="The record's whole value, for one that is no CloudEvent."),
    ] = None,
    why: Why = None,
    app: Annotated[
        str | None,
        typer.Option(metavar="MODULE:APP", help="The application that declares the event type; not needed with --url."),
    ] = None,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Mend what a replay will run: the same event with other data. The record itself is kept as it was.

    Without --data and --value the value is opened in $EDITOR.
    """
    if data is not None and value is not None:
        raise typer.BadParameter("give --data or --value, not both.")

    async def work() -> str | None:
        async with open_letters(url, api_key_file) as source:
            if data is not None:
                wanted = Edit(data=data.read())
            else:
                wanted = Edit(value=value.read() if value is not None else _in_editor(await source.read(identity)))
            return await source.edit(identity, wanted, why, app)

    refusal = asyncio.run(work())
    if refusal is not None:
        stderr.print(harmless(refusal))
        raise typer.Exit(1)
    stdout.print(f"the dead letter {identity} is edited; replay it when you are ready")


@filtered
def replay(
    wanted: Filter,
    ids: Ids = None,
    all_open: AllOpen = False,
    why: Why = None,
    yes: Yes = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Run events again: each joins its key's lane, behind what waits there, with all its attempts."""
    _decide("replay", ids, wanted, why, all_open=all_open, yes=yes, url=url, api_key_file=api_key_file)


@filtered
def discard(
    wanted: Filter,
    ids: Ids = None,
    all_open: AllOpen = False,
    why: Why = None,
    yes: Yes = False,
    url: Url = None,
    api_key_file: KeyFile = None,
) -> None:
    """Give events up; they stay visible as decided for HEADRACE_DEAD_LETTER_DAYS days."""
    _decide("discard", ids, wanted, why, all_open=all_open, yes=yes, url=url, api_key_file=api_key_file)


def _decide(
    decision: Decision,
    ids: Sequence[UUID] | None,
    wanted: Filter,
    why: str | None,
    *,
    all_open: bool,
    yes: bool,
    url: str | None,
    api_key_file: Path | None,
) -> None:
    if bool(ids) == all_open:
        raise typer.BadParameter("name the dead letters by id, or pass --all-open.")
    if ids and wanted != Filter():
        raise typer.BadParameter("options that choose dead letters go with --all-open, not with ids.")

    async def work() -> None:
        async with open_letters(url, api_key_file) as source:
            open_ones = wanted._replace(is_open=True)
            count = len(ids) if ids else (await source.groups(open_ones, 1))[1]
            if not count:
                stdout.print("there is no open dead letter")
                return
            if not yes:
                typer.confirm(f"{decision.capitalize()} {count_of(count, 'dead letter')}?", abort=True, err=True)
            if ids:
                await _decide_each(source, ids, decision, why)
            else:
                await _decide_matching(source, open_ones, decision, why, count)

    asyncio.run(work())


async def _decide_each(source: Source, chosen: Sequence[UUID], decision: Decision, why: str | None) -> None:
    shown = track(chosen, decision, console=stderr, transient=True, disable=len(chosen) < 2)
    refused = [said for identity in shown if (said := await source.decide(identity, decision, why)) is not None]
    for said in refused:
        stderr.print(harmless(said))
    _print_done(decision, len(chosen) - len(refused))
    if refused:
        raise typer.Exit(1)


async def _decide_matching(source: Source, wanted: Filter, decision: Decision, why: str | None, count: int) -> None:
    """Decide step by step; an interrupted command has said how far it came, and its next call continues there."""
    done = 0
    with Progress(console=stderr, transient=True, disable=count < 2) as shown:
        task = shown.add_task(decision, total=count)
        try:
            async for taken in source.decide_many(wanted, decision, why):
                done += taken
                shown.update(task, completed=done)
        except BaseException:  # Ctrl-C, an outage, a refusal
            stderr.print(f"stopped after {count_of(done, 'dead letter')}; the same command continues there")
            raise
    _print_done(decision, done)


def _print_done(decision: Decision, done: int) -> None:
    what = "to be replayed by the owner" if decision == "replay" else "discarded"
    stdout.print(f"{count_of(done, 'dead letter')} {what}")


def _in_editor(letter: DeadLetter) -> bytes:
    """Return what a person makes of the letter's value. Raises: ConfigurationError (it is no text, or not changed)."""
    name = "edited_value" if letter["edited"] else "value"
    text = letter[name]
    if text is None:
        raise ConfigurationError(f"the value of {letter['id']} is no text; give another one with --value FILE.")
    changed = edit_text(text)
    if changed == text:
        raise ConfigurationError("nothing was changed in the editor, so nothing is kept.")
    return changed.encode()


def edit_text(text: str) -> str:
    """Return what a person makes of the text in $VISUAL, $EDITOR or vi. Raises: ConfigurationError (it failed)."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:  # an editor may put another file in place of this
        file = Path(folder, "value.json")
        file.write_bytes(text.encode())  # lines end as they did
        try:
            subprocess.run([*shlex.split(editor), file], check=True)
            changed = file.read_bytes().decode()
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise ConfigurationError(
                f"the editor {editor!r} failed ({error}); set EDITOR, or pass --data FILE."
            ) from error
    return changed if text.endswith("\n") else changed.removesuffix("\n")
