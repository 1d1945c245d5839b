"""The command line: one file per verb.

A wrong command line ends with exit code 2 and the usage; what a person can mend otherwise ends with exit code 1 and
one sentence on standard error (`__main__`). Tables and answers go to standard output.
"""

from __future__ import annotations

import typer

from headrace.cli.dead_letters import dead_letters
from headrace.cli.doctor import doctor
from headrace.cli.lanes import lanes
from headrace.cli.migrate import migrate_schema
from headrace.cli.run import run
from headrace.cli.subscriptions import subscriptions
from headrace.cli.topics import topics

cli = typer.Typer(
    name="headrace",
    help="Events for FastAPI teams: typed, in order per key, applied exactly once in Postgres.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
cli.command("run")(run)
cli.command("migrate")(migrate_schema)
cli.command("topics")(topics)
cli.add_typer(dead_letters, name="dead-letters")
cli.add_typer(lanes, name="lanes")
cli.add_typer(subscriptions, name="subscriptions")
cli.command("doctor")(doctor)
