"""The command line: one file per verb.

| exit code | means |
| --- | --- |
| 0 | done; `headrace run`: stopped as asked, with a clean drain |
| 1 | refused, in one sentence on standard error (`__main__`); `headrace run`: also a stop that was cut short |
| 1 | `headrace load`: the run was not exact |
| 2 | wrong command line; the usage is on standard error |
| 3 | `headrace replay --dry-run`: something would be different |
| 70 | `headrace run`: the process is beyond repair (`supervisor`); another one should be started |

Tables and answers go to standard output.
"""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.audit import audit
from headrace.cli.database import database
from headrace.cli.dead_letters import dead_letters
from headrace.cli.describe import describe
from headrace.cli.doctor import doctor
from headrace.cli.effects import effects
from headrace.cli.explain import explain_event
from headrace.cli.lanes import lanes
from headrace.cli.load import load
from headrace.cli.migrate import migrate_schema
from headrace.cli.rebuild import rebuild_projection
from headrace.cli.replay import replay_events
from headrace.cli.rewind import rewind_subscription
from headrace.cli.run import run
from headrace.cli.schemas import schemas
from headrace.cli.state import state
from headrace.cli.subscriptions import subscriptions
from headrace.cli.topics import topics
from headrace.version import VERSION

cli = typer.Typer(
    name="headrace",
    help="Events for FastAPI teams: typed, in order per key, applied exactly once in Postgres.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"headrace {VERSION}")
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Hold the options that belong to no verb."""


cli.command("run")(run)
cli.command("describe")(describe)
cli.command("migrate")(migrate_schema)
cli.command("topics")(topics)
cli.add_typer(dead_letters, name="dead-letters")
cli.add_typer(database, name="database")
cli.add_typer(lanes, name="lanes")
cli.add_typer(effects, name="effects")
cli.add_typer(schemas, name="schemas")
cli.add_typer(state, name="state")
cli.add_typer(subscriptions, name="subscriptions")
cli.command("rebuild")(rebuild_projection)
cli.command("rewind")(rewind_subscription)
cli.command("replay")(replay_events)
cli.command("audit")(audit)
cli.command("explain")(explain_event)
cli.command("doctor")(doctor)
cli.command("load")(load)
