"""`headrace schemas`: JSON Schemas of the event types in a folder, and whether a change can read what is in the log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.loading import Target
from headrace.cli.output import count_of, stderr, stdout
from headrace.event import EventType
from headrace.loading import find_platform, load_app
from headrace.schemas.check import check, missing
from headrace.schemas.snapshot import declared, read, write

schemas = typer.Typer(
    help="JSON Schemas of the event types: export them, check a change against them.", no_args_is_help=True
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the schemas are, such as schemas; commit it.")]


@schemas.command("export")
def export_schemas(
    target: Target,
    folder: Folder,
    force: Annotated[bool, typer.Option("--force", help="Write them though the log's events do not fit.")] = False,
) -> None:
    """Write a JSON Schema for each event type, under its version; those of older versions stay."""
    types = _types(target)
    if not force and folder.is_dir():
        _refuse(check(types, read(folder)))
    changed = write(folder, [declared(types[name]) for name in sorted(types)])
    stdout.print(f"{count_of(len(types), 'schema')} in {folder}: " + (", ".join(changed) or "nothing has changed"))


@schemas.command("check")
def check_schemas(target: Target, folder: Folder) -> None:
    """Refuse a change that cannot read the events of the log, and a folder that does not have what is declared."""
    types, kept = _types(target), read(folder)
    _refuse(check(types, kept))
    if old := missing(types, kept):
        _refuse([f"{', '.join(old)}: not as declared; write it with: headrace schemas export {target} {folder}."])
    stdout.print(f"{count_of(len(kept), 'schema')} in {folder}: all that they accept can be read")


def _types(target: str) -> dict[str, EventType]:
    registry = find_platform(load_app(target)).registry
    registry.complete()
    return registry.types


def _refuse(faults: list[str]) -> None:
    for fault in faults:
        stderr.print(fault, soft_wrap=True, markup=False)
    if faults:
        raise typer.Exit(1)
