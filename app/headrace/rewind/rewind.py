"""Does what a plan says: all of it, or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from headrace import sql
from headrace.database.pool import Connection
from headrace.errors import ConfigurationError
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Log, TopicPartition
from headrace.log.stored import plain
from headrace.registry import Registry
from headrace.rewind.plan import Move, Plan, refuse_stale
from headrace.rewind.rehearsal import Report
from headrace.rewind.states import Remade, remake
from headrace.rewind.write import MovedOnError, Work, move_claim
from headrace.settings import Settings
from headrace.state.hand import Act

ATTEMPTS = 5
"""An owner that was fenced claims again, and may apply a batch before it looks whether it is paused."""


class Rewound(NamedTuple):
    """What was done."""

    moves: Sequence[Move]
    changed: Mapping[str, int]
    """What was taken out of the tables, or made anew, by its name."""
    is_paused: bool
    """True if the subscription was paused before, and stays so."""


async def rewind(
    connection: Connection,
    log: Log,
    registry: Registry,
    subscription: Subscription,
    settings: Settings,
    plan: Plan,
    act: Act,
    report: Report = lambda done, total: None,
) -> Rewound:
    """Move the claims back, with all that belongs to them; the owners apply what follows.

    What a killed one has left is taken up: the subscription is not paused afterwards, unless an operator has paused it.

    Cancel: nothing was changed, and the subscription goes on.
    Raises: ConfigurationError (another one runs, claims were moved since the plan was made, a key on two partitions),
    HandlerError (a handler raises at an event of the past), TransportError: likewise.
    """
    if not await connection.fetchval(sql.subscription.TRY_REWIND, plan.group):
        raise ConfigurationError(f"{subscription.name!r} is being rewound by somebody else; wait until that has ended.")
    try:
        return await _rewind(connection, log, registry, subscription, settings, plan, act, report)
    finally:
        if not connection.is_closed():
            await connection.execute(sql.subscription.END_REWIND, plan.group)


async def _rewind(
    connection: Connection,
    log: Log,
    registry: Registry,
    subscription: Subscription,
    settings: Settings,
    plan: Plan,
    act: Act,
    report: Report,
) -> Rewound:
    was_paused = await connection.fetchval(sql.subscription.IS_PAUSED, plan.group)
    work = Work(subscription, plan, Act(plain(act.by, 200), plain(act.why or "") or None), settings.engine)
    attempts = ATTEMPTS
    try:
        while True:
            attempts -= 1
            moves, sequences = await _stop(connection, plan, work.act)
            remade: Mapping[TopicPartition, Remade] = {}
            if plan.states == "remade":
                remade = await remake(connection, log, registry, subscription, settings, moves, report)
            try:
                changed = await _move(connection, work, moves, sequences, remade, was_paused)
            except MovedOnError:  # an owner claimed again before it had seen the pause
                if attempts:
                    continue
                raise
            return Rewound(moves, changed, was_paused)
    except BaseException:
        if not was_paused and not connection.is_closed():
            await connection.execute(sql.subscription.SET_PAUSED, plan.group, False)
        raise


async def _move(
    connection: Connection,
    work: Work,
    moves: Sequence[Move],
    sequences: Mapping[TopicPartition, int],
    remade: Mapping[TopicPartition, Remade],
    was_paused: bool,
) -> Mapping[str, int]:
    """Move all claims, and resume, in one transaction; return how much was changed."""
    changed = Counter[str]()
    async with connection.transaction():
        await connection.execute("set local statement_timeout = 0")
        for moved in moves:
            place = moved.place
            changed.update(await move_claim(connection, work, moved, sequences[place], remade.get(place)))
        await connection.execute(sql.subscription.SET_PAUSED, work.plan.group, was_paused)
    return changed


async def _stop(connection: Connection, plan: Plan, act: Act) -> tuple[list[Move], dict[TopicPartition, int]]:
    """Pause the subscription and fence its owners; return the moves from where the claims stand now, and sequences.

    Raises: ConfigurationError (claims were moved since the plan was made).
    """
    found: dict[TopicPartition, tuple[int, int]] = {}
    async with connection.transaction():
        await connection.execute(sql.subscription.PAUSE_TO_REWIND, plan.group, act.by)
        for number in plan.partitions:
            for row in await connection.fetch(sql.claim.FENCE, plan.group, number):
                found[TopicPartition(row["topic"], number)] = row["next_offset"], row["sequence"]
        moves_before = await connection.fetchval(sql.claim_move.COUNT, plan.group)
        refuse_stale(plan, moves_before, {place: offset for place, (offset, _) in found.items()})
    moves = [move._replace(claimed=found[move.place][0]) for move in plan.moves]
    return moves, {place: sequence for place, (_, sequence) in found.items()}
