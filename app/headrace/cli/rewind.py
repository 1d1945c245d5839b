"""`headrace rewind`: lets a subscription apply a part of the log again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

import typer

from headrace import sql
from headrace.cli.dead_letter_filter import moment
from headrace.cli.dead_letter_sources import user
from headrace.cli.loading import Target, declared, load_platform
from headrace.cli.output import age, harmless, progress_bar, stdout, table
from headrace.connections import current_database, started_log
from headrace.database.pool import Connection
from headrace.errors import ConfigurationError
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Log
from headrace.platform import Headrace
from headrace.rewind import plan as plans
from headrace.rewind.plan import Plan, make_plan, refuse_stale
from headrace.rewind.rewind import rewind
from headrace.rewind.shown import lines_of, plan_of
from headrace.settings import MEMORY
from headrace.state.hand import Act

HISTORY_ROWS = 100

Name = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="Its name, such as wallets.")]


def rewind_subscription(
    target: Target,
    name: Name,
    to_beginning: Annotated[bool, typer.Option("--to-beginning", help="To where the subscription began.")] = False,
    to_offset: Annotated[int | None, typer.Option(min=0, help="To an offset of one partition.")] = None,
    to_time: Annotated[
        datetime | None,
        typer.Option(parser=moment, metavar="TIME", help="To what the log took in at a time, or an age ago (2h, 7d)."),
    ] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition of its topics.")] = None,
    effects: Annotated[bool, typer.Option("--effects", help="Start the effects of its events again.")] = False,
    own_sql: Annotated[bool, typer.Option("--own-sql", help="The handlers' own SQL may run again.")] = False,
    why: Annotated[str | None, typer.Option(help="The reason; it is kept with who did it.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done, and change nothing.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Print how its claims were moved, and by whom.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Go back to an offset, a time or the beginning: states are as they were, and what follows is applied again.

    It says what it is going to do, and asks, before anything is changed.
    """
    platform = load_platform(target)
    subscription = declared(target, "subscription", platform.registry.subscriptions, name)
    if history:
        asyncio.run(_print_history(platform, subscription))
        return
    if [to_beginning, to_offset is not None, to_time is not None].count(True) != 1:
        raise typer.BadParameter("say where to: one of --to-beginning, --to-offset and --to-time.")
    wanted = plans.Target(to_offset, to_time, partition)
    options = {"effects": effects, "own_sql": own_sql}
    made = asyncio.run(_plan(platform, subscription, wanted, options))
    if not as_json:
        for line in lines_of(made, subscription):
            stdout.print(harmless(line), soft_wrap=True)
    if plan:
        if as_json:
            typer.echo(json.dumps({"done": False, **plan_of(made)}, indent=2))
        return
    if not yes:
        typer.confirm(f"Rewind {subscription.group}?", abort=True, err=True)
    changed = asyncio.run(_rewind(platform, subscription, wanted, options, made, Act(user(), why)))
    if as_json:
        typer.echo(json.dumps({"done": True, **plan_of(made), **changed}, indent=2))
        return
    paused = "; it is paused, and stays so" if changed["paused"] else ""
    stdout.print(f"{subscription.group} is rewound{paused}")


@asynccontextmanager
async def opened(platform: Headrace, advice: str) -> AsyncIterator[tuple[Connection, Log]]:
    """Yield a connection and the log. Raises: ConfigurationError (a process has them: `advice` says what to do)."""
    settings = platform.settings
    if settings.log == MEMORY:
        raise ConfigurationError("HEADRACE_LOG=memory ends with its process, so that no command can read it.")
    async with (
        current_database(settings, advice=advice) as pool,
        started_log(settings, pool) as log,
        pool.acquire() as connection,
    ):
        await connection.execute("set statement_timeout = 0")
        yield connection, log


def _advice(subscription: Subscription) -> str:
    return f"stop it first, or ask it: POST /subscriptions/{subscription.name}/rewind"


async def _plan(platform: Headrace, subscription: Subscription, target: plans.Target, options: dict[str, bool]) -> Plan:
    async with opened(platform, _advice(subscription)) as (connection, log):
        return await make_plan(connection, log, subscription, target, **options)


async def _rewind(
    platform: Headrace,
    subscription: Subscription,
    target: plans.Target,
    options: dict[str, bool],
    confirmed: Plan,
    act: Act,
) -> dict[str, Any]:
    """Do it, from where the claims have come to meanwhile. Raises: ConfigurationError (`confirmed` does not hold)."""
    registry, settings = platform.registry, platform.settings
    async with opened(platform, _advice(subscription)) as (connection, log):
        made = await make_plan(connection, log, subscription, target, **options)
        refuse_stale(confirmed, made.moves_before, {move.place: move.claimed for move in made.moves})
        with progress_bar(f"reading what {subscription.name} was") as report:
            done = await rewind(connection, log, registry, subscription, settings, made, act, report)
    return {"changed": dict(done.changed), "paused": done.is_paused}


async def _print_history(platform: Headrace, subscription: Subscription) -> None:
    async with opened(platform, _advice(subscription)) as (connection, _):
        rows = await connection.fetch(sql.claim_move.LIST, subscription.group, HISTORY_ROWS)
    if not rows:
        stdout.print(f"no claim of {subscription.group} was ever moved")
        return
    shown = table("WHEN", "WHAT", "PARTITION", "FROM", "TO", "BY", "WHY", right=("FROM", "TO"))
    for row in rows:
        place = f"{row['topic']}/{row['partition']}"
        who = harmless(row["by"] or "-"), harmless(row["why"] or "-")
        offsets = str(row["from_offset"]), str(row["next_offset"])
        shown.add_row(f"{age(row['moved_at'])} ago", row["action"], harmless(place), *offsets, *who)
    stdout.print(shown)
