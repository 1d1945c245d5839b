"""`headrace state migrate`: writes the states of a class as its new version has them, while the service goes on."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from headrace.cli.loading import Target, declared, load_platform
from headrace.cli.output import count_of, harmless, progress_bar, stdout
from headrace.connections import current_database
from headrace.sagas.kept import SAGA_STATE
from headrace.settings import Settings
from headrace.state.codec import StateType
from headrace.state.migrate import Migrated, migrate


def migrate_states(
    target: Target,
    subscription: Annotated[
        str | None, typer.Argument(metavar="[SUBSCRIPTION]", help="Only its states, such as wallets.")
    ] = None,
) -> None:
    """Write each state that an older version of its class has written as the class has it now.

    States that nobody reads keep their old form else, and need their upcasters for ever.
    """
    platform = load_platform(target)
    subscriptions = platform.registry.subscriptions
    if subscription is not None:
        declared(target, "subscription", subscriptions, subscription)
    wanted = [
        (each.group, state)
        for name, each in subscriptions.items()
        for state in each.states.values()
        if subscription in (None, name) and state.name != SAGA_STATE
    ]
    refused = False
    for group, state, done in asyncio.run(_migrate(platform.settings, wanted)):
        stdout.print(f"{group} {state}: {count_of(done.rows, 'row')} migrated")
        for key, why in done.refused[:10]:
            stdout.print(harmless(f"  {key}: {why}"), soft_wrap=True, markup=False)
        if done.refused:
            refused = True
            rows = count_of(len(done.refused), "row")
            stdout.print(f"  {rows} stayed as before; mend the upcaster, then run it again")
    if refused:
        raise typer.Exit(1)


async def _migrate(settings: Settings, wanted: list[tuple[str, StateType]]) -> list[tuple[str, str, Migrated]]:
    found = []
    async with current_database(settings) as pool, pool.acquire() as connection:
        await connection.execute("set statement_timeout = 0")
        for group, state in wanted:
            with progress_bar(f"{group} {state.name}") as report:
                found.append((group, state.name, await migrate(connection, group, state, report)))
    return found
