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
    """True if an operator has paused the subscription, before or meanwhile: it stays so."""


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

    Meanwhile the subscription is held, beside what an operator asks of it, which counts afterwards. What a killed one
    has left is taken up.

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
                changed, is_paused = await _move(connection, work, moves, sequences, remade)
            except MovedOnError:  # an owner claimed again before it had seen the pause
                if attempts:
                    continue
                raise
            return Rewound(moves, changed, is_paused)
    except BaseException:
        if not connection.is_closed():
            await connection.execute(sql.subscription.RELEASE_REWOUND, plan.group)
        raise


async def _move(
    connection: Connection,
    work: Work,
    moves: Sequence[Move],
    sequences: Mapping[TopicPartition, int],
    remade: Mapping[TopicPartition, Remade],
) -> tuple[Mapping[str, int], bool]:
    """Move all claims, and let go, in one transaction; return how much was changed, and if an operator has paused."""
    changed = Counter[str]()
    async with connection.transaction():
        await connection.execute("set local statement_timeout = 0")
        for moved in moves:
            place = moved.place
            changed.update(await move_claim(connection, work, moved, sequences[place], remade.get(place)))
        is_paused = await connection.fetchval(sql.subscription.RELEASE_REWOUND, work.plan.group)
    return changed, is_paused


async def _stop(connection: Connection, plan: Plan, act: Act) -> tuple[list[Move], dict[TopicPartition, int]]:
    """Pause the subscription and fence its owners; return the moves from where the claims stand now, and sequences.

    Raises: ConfigurationError (claims were moved since the plan was made).
    """
    found: dict[TopicPartition, tuple[int, int]] = {}
    async with connection.transaction():
        await connection.execute(sql.subscription.HOLD_TO_REWIND, plan.group, act.by)
        for number in plan.partitions:
            for row in await connection.fetch(sql.claim.FENCE, plan.group, number):
                found[TopicPartition(row["topic"], number)] = row["next_offset"], row["sequence"]
        moves_before = await connection.fetchval(sql.claim_move.COUNT, plan.group)
        refuse_stale(plan, moves_before, {place: offset for place, (offset, _) in found.items()})
    moves = [move._replace(claimed=found[move.place][0]) for move in plan.moves]
    return moves, {place: sequence for place, (_, sequence) in found.items()}
