"""The command line: one file per verb. A user's mistake ends in one sentence on stderr and exit code 2, or 1 later on."""

from __future__ import annotations

import typer

from headrace.cli.run import run

cli = typer.Typer(
    name="headrace",
    help="Events for FastAPI teams: typed, in order per key, applied exactly once in Postgres.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
cli.command()(run)
