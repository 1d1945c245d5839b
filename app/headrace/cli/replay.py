"""`headrace replay --dry-run`: what would this code make of yesterday's events?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal

import typer

from headrace.cli.dead_letter_filter import moment
from headrace.cli.loading import Target, declared, load_platform
from headrace.cli.output import count_of, harmless, progress_bar, stdout
from headrace.cli.rewind import opened
from headrace.errors import ConfigurationError
from headrace.handlers.subscription import Subscription
from headrace.platform import Headrace
from headrace.rewind import plan as plans
from headrace.rewind.difference import Difference
from headrace.rewind.dry_run import dry_run

DIFFERS = 3
"""The exit code if something would be different."""


def replay_events(
    target: Target,
    subscription: Annotated[str, typer.Option(metavar="NAME", help="Whose handlers run, such as wallets.")],
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Change nothing, and print the difference.")] = False,
    since: Annotated[
        datetime | None,
        typer.Option(parser=moment, metavar="TIME", help="Only keys with events since a time, or an age (2h, 7d)."),
    ] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition of its topics.")] = None,
    fail_on: Annotated[
        Literal["difference", "raise"],
        typer.Option(help="What exit code 3 means: any difference, or handlers that raise now and did not."),
    ] = "difference",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Run this code over events that were applied, without touching anything, and print what would be different.

    Exit code 0: nothing would be, 3: something would be (see --fail-on).
    """
    if not is_dry:
        raise ConfigurationError(
            f"to apply events again, run headrace rewind {target} {subscription}; to see what that would change, add "
            "--dry-run."
        )
    platform = load_platform(target)
    found = declared(target, "subscription", platform.registry.subscriptions, subscription)
    difference = asyncio.run(_dry_run(platform, found, plans.Target(at=since, partition=partition)))
    if as_json:
        typer.echo(json.dumps(difference.shown(), indent=2))
    else:
        for line in _lines(difference):
            stdout.print(harmless(line), soft_wrap=True)
    if not (difference.is_empty if fail_on == "difference" else difference.raised == 0):
        raise typer.Exit(DIFFERS)


async def _dry_run(platform: Headrace, subscription: Subscription, target: plans.Target) -> Difference:
    async with opened(platform, "stop it first") as (connection, log):
        await connection.execute("set default_transaction_read_only = on")
        with progress_bar(f"running the handlers of {subscription.name}") as report:
            registry, settings = platform.registry, platform.settings
            return await dry_run(connection, log, registry, subscription, settings, target, report)


def _lines(difference: Difference) -> Iterator[str]:
    """Yield what a person reads."""
    ran = f"{count_of(difference.events, 'event')} of {count_of(difference.keys, 'key')}"
    yield f"{difference.subscription}: {ran} ran, {difference.offsets:,} offsets are in question"
    if difference.topics > 1:
        yield (
            f"events of {difference.topics} topics ran in the order of the log's times, which may not be the order in "
            "which they were applied: a difference may come of that alone"
        )
    if difference.left_out:
        yield (
            f"{count_of(difference.left_out, 'key')} left out, since an event of each came before its turn and the log "
            "does not tell what was waited for in vain; emitted events are not compared"
        )
    if difference.changed:
        yield f"{count_of(difference.changed, 'state')} would be different:"
    for change in difference.changes:
        before, after = (json.dumps(each) if each is not None else "none" for each in change[2:])
        yield f"    {change.state} {change.key}: {before} -> {after}"
    if difference.raised:
        yield f"{count_of(difference.raised, 'event')} would fail, and did not:"
    for each in difference.raises:
        yield f"    {each.topic}/{each.partition}/{each.offset} {each.key}: {each.error}"
    if difference.mended:
        yield f"{count_of(difference.mended, 'event')} failed then, and would be applied"
    emits = difference.emits
    if any(emits[1:]):
        yield (
            f"of {emits.compared:,} emitted events {emits.changed:,} would have other data; {emits.added:,} would be "
            f"new, {emits.missing:,} missing"
        )
    if difference.is_empty:
        yield "nothing would be different"
