"""`headrace state`: what subscriptions keep for each key; a person lists, reads, writes and deletes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace import sql
from headrace.cli.dead_letter_sources import user
from headrace.cli.loading import Target
from headrace.cli.output import harmless, stdout, table
from headrace.cli.state_migrate import migrate_states
from headrace.connections import current_database
from headrace.database.pool import Connection
from headrace.errors import ConfigurationError
from headrace.keeping import Keeping
from headrace.loading import find_platform, load_app
from headrace.sagas.kept import SAGA_STATE
from headrace.settings import Settings, load_settings
from headrace.state.hand import Act, Place, change, changes, count, keys

state = typer.Typer(help="What is kept for each key: list, read, write and delete it.", no_args_is_help=True)

state.command("migrate")(migrate_states)

Group = Annotated[str, typer.Argument(metavar="SERVICE.SUBSCRIPTION", help="Whose state, such as shop.wallets.")]
Name = Annotated[str, typer.Argument(metavar="STATE", help="The name of its class in lower case, such as wallet.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key, such as ada.")]
Why = Annotated[str | None, typer.Option(help="The reason; it is kept with the change.")]


@state.command("list")
def list_states(
    group: Annotated[str | None, typer.Argument(metavar="[SERVICE.SUBSCRIPTION]", help="Only its states.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="[STATE]", help="Its keys, with what is kept.")] = None,
    after: Annotated[str | None, typer.Option(help="Only keys behind this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most keys to print.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Count the keys of each state; or print the keys of one, with what is kept for each."""

    async def work() -> list[dict[str, Any]]:
        async with _database(load_settings()) as connection:
            if group is not None and name is not None:
                return [dict(row) for row in await keys(connection, group, name, after, limit)]
            return [dict(row) for row in await count(connection, group)]

    found = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    columns = ("KEY", "VERSION", "DATA") if name is not None else ("SUBSCRIPTION", "STATE", "KEYS", "SIZE")
    printed = table(*columns)
    for row in found:
        printed.add_row(*(harmless(str(row[column.lower()]))[:500] for column in columns))
    stdout.print(printed if found else "no state is kept")


@state.command("show")
def show_state(group: Group, name: Name, key: Key) -> None:
    """Print a state as JSON, and what people have done to it."""
    place = Place(group, name, key)

    async def work() -> tuple[Any, Any]:
        async with _database(load_settings()) as connection:
            return await connection.fetchrow(sql.state.READ_AS_TEXT, *place), await changes(connection, place, 100)

    row, done = asyncio.run(work())
    if row is None and not done:
        raise ConfigurationError(f"{group} has no state {name!r} of the key {key!r}.")
    typer.echo(row["data"] if row is not None else "null")
    for each in done:
        why = f": {each['why']}" if each["why"] else ""
        line = f"{each['changed_at']:%Y-%m-%d %H:%M:%S} {each['action']} by {each['by']}{why}; it was {each['before']}"
        stdout.print(harmless(line), soft_wrap=True, markup=False)


@state.command("put")
def put_state(
    target: Target,
    subscription: Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="Its name, such as wallets.")],
    name: Name,
    key: Key,
    data: Annotated[str, typer.Argument(metavar="JSON", help="The whole state, or @FILE that has it.")],
    why: Why = None,
) -> None:
    """Write a state, checked by its class; the owner of its partition reads it anew."""
    platform = find_platform(load_app(target))
    platform.registry.complete()
    declared = platform.registry.subscriptions.get(subscription)
    kept = declared.states.get(name) if declared is not None else None
    if declared is None or kept is None:
        known = ", ".join(
            f"{each.name} {one}" for each in platform.registry.subscriptions.values() for one in each.states
        )
        raise ConfigurationError(f"{target} declares no state {subscription} {name}; it declares: {known or 'none'}.")
    given = _content(Path(data[1:])) if data.startswith("@") else data.encode()
    try:
        text = kept.encode(kept.load(given)[0]).decode()
    except ValueError as error:
        raise ConfigurationError(f"it is no {kept.model.__name__}: {error}") from error
    version = asyncio.run(_change(platform.settings, Place(declared.group, name, key), text, why, kept.keeping))
    stdout.print(f"{declared.group} {name} {harmless(key)} is at version {version}")


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}.") from error


@state.command("delete")
def delete_state(
    group: Group,
    name: Name,
    key: Key,
    why: Why = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a state: the key's next event begins with the first value of its class."""
    if not yes:
        typer.confirm(f"Delete {harmless(name)} of {harmless(key)} in {harmless(group)}?", abort=True, err=True)
    asyncio.run(_change(load_settings(), Place(group, name, key), None, why))
    stdout.print(f"{harmless(group)} {harmless(name)} {harmless(key)} is deleted")


async def _change(
    settings: Settings, place: Place, data: str | None, why: str | None, keeping: Keeping | None = None
) -> int | None:
    if place.state == SAGA_STATE:
        raise ConfigurationError("the state of a saga follows from its events, and is not changed by hand.")
    async with _database(settings) as connection:
        return await change(connection, place, data, Act(user(), why), keeping)


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Connection]:
    async with current_database(settings) as pool, pool.acquire() as connection:
        yield connection
