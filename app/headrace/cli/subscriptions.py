"""`headrace subscriptions`: what the database holds of each subscription, and the removal of what is left of one."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import msgspec
import typer

from headrace.cli.output import age, count_of, harmless, stdout, table
from headrace.connections import current_database
from headrace.database.pool import Row
from headrace.errors import ConfigurationError
from headrace.loading import find_platform, load_app
from headrace.queries.groups import Owned, find, remove
from headrace.settings import load_settings

subscriptions = typer.Typer(
    help="What the database holds of each subscription: list it, remove what is left of one.", no_args_is_help=True
)

Group = Annotated[str, typer.Argument(metavar="GROUP", help="SERVICE.NAME, as `headrace subscriptions list` shows it.")]


@subscriptions.command("list")
def list_subscriptions(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Print every subscription that the database knows, declared or not."""
    rows = asyncio.run(_find(None))
    if as_json:
        typer.echo(json.dumps([msgspec.to_builtins(_shown(row)) for row in rows], indent=2))
        return
    if not rows:
        stdout.print("the database knows no subscription")
        return
    shown = table("GROUP", "PARTITIONS", "OWNERS", "LAST COMMIT", "STATES", "LANES", "OPEN DEAD LETTERS")
    for row in rows:
        shown.add_row(
            harmless(row["subscription"]),
            str(row["partitions"]),
            harmless(", ".join(row["owners"] or ()) or "-"),
            age(row["committed_at"]),
            *(str(row[name]) for name in ("states", "lanes", "dead_letters")),
        )
    stdout.print(shown)


@subscriptions.command("remove")
def remove_subscription(
    group: Group,
    app: Annotated[
        str | None, typer.Option(metavar="MODULE:APP", help="Refuse if this application declares the subscription.")
    ] = None,
    owner_died: Annotated[
        bool, typer.Option("--owner-died", help="Its owners ended without releasing it; no process runs it any more.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove all that is left of a subscription which no application runs any more."""
    if app is not None:
        _refuse_declared(app, group)
    held = asyncio.run(_find(group))
    if not held:
        raise ConfigurationError(
            f"the database knows no subscription {group!r}; `headrace subscriptions list` names all."
        )
    if not yes:
        typer.confirm(_question(held[0]), abort=True, err=True)
    rows = asyncio.run(_remove(group, owner_died=owner_died))
    stdout.print(f"{group} is removed: " + ", ".join(f"{count} {name}" for name, count in rows.items() if count))


async def _find(group: str | None) -> list[Row]:
    async with current_database(load_settings()) as pool, pool.acquire() as connection:
        return await find(connection, group)


async def _remove(group: str, *, owner_died: bool) -> dict[str, int]:
    settings = load_settings()
    async with current_database(settings) as pool, pool.acquire() as connection:
        # No other process has the embedded database open now, so that an owner which it names is dead.
        done = await remove(connection, group, owners_are_dead=owner_died or settings.is_database_embedded)
    if isinstance(done, Owned):
        raise ConfigurationError(
            f"{group} is owned by {', '.join(done.owners)}; stop what runs it, or pass --owner-died if that process "
            "ended without releasing it."
        )
    return done.rows


def _refuse_declared(app: str, group: str) -> None:
    declared = find_platform(load_app(app)).registry.subscriptions.values()
    if group in {subscription.group for subscription in declared}:
        raise ConfigurationError(f"{app} declares {group}; remove its declaration first.")


def _question(row: Row) -> str:
    states, lanes = count_of(row["states"], "state"), count_of(row["lanes"], "lane")
    held = f"{states}, {lanes} and {count_of(row['dead_letters'], 'open dead letter')}"
    lost = (
        f" {row['unpublished']} batches have emitted events that may not be in the log yet."
        if row["unpublished"]
        else ""
    )
    return f"Remove {harmless(row['subscription'])} with {held}?{lost} This cannot be undone."


def _shown(row: Row) -> dict[str, Any]:
    held = dict(row)
    return {"group": held.pop("subscription"), **held}
