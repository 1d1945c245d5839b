"""What one batch commits: everything it did, in a number of statements that does not grow with it."""

from __future__ import annotations

from headrace.database.pool import Connection
from headrace.effects.rows import start
from headrace.engine.claim import Claim
from headrace.engine.effects import Effects
from headrace.engine.lanes import close_lanes, open_lanes, park, unpark
from headrace.item import APPLIED, DEAD, PARKED, SKIPPED
from headrace.ledger.dead_letters import store_dead_letters
from headrace.ledger.rows import Kind, Row, pack_emits, pack_marks
from headrace.sagas.kept import SAGA_STATE
from headrace.sagas.store import follow
from headrace.state.store import write
from headrace.timers.store import write as write_timers


async def write_effects(connection: Connection, claim: Claim, effects: Effects, sequence: int) -> None:
    """Write everything and move the claim along, inside the caller's transaction; the claim's check comes last.

    Raises: FencedError (another owner), ConflictError (a state changed elsewhere), DataRefusedError by classification.
    """
    group, partition = claim.group, claim.partition.partition
    if effects.rows is not None:
        await effects.rows.write(connection)
    for state, rows in effects.states.items():
        if rows:
            await write(connection, group, partition, state, rows, effects.keeping[state])
        if rows and state == SAGA_STATE:
            effects.sagas_ended = await follow(connection, group, partition, rows)
    if effects.parked:
        await park(connection, group, partition, effects.parked)
    if effects.released:
        await unpark(connection, group, partition, effects.released)
    if effects.lanes:
        await open_lanes(connection, group, partition, effects.lanes)
    if effects.closed:
        await close_lanes(connection, group, partition, effects.closed)
    if effects.dead:
        await store_dead_letters(connection, group, partition, effects.dead)
    if effects.timers:
        changes = [change for _, change in effects.timers]
        effects.next_timer_seconds = await write_timers(connection, group, partition, changes)
    if effects.started:
        await start(connection, group, partition, effects.started)
    row = ledger_row(sequence, claim.epoch, claim.next_offset, effects)
    await claim.advance(connection, effects.next_offset, sequence, effects.emitted_through, effects.last, row)


def ledger_row(sequence: int, epoch: int, first_offset: int, effects: Effects) -> Row:
    """Return what the ledger keeps of the batch."""
    return Row(
        sequence=sequence,
        kind=effects.kind,
        epoch=epoch,
        first_offset=first_offset,
        next_offset=effects.next_offset,
        applied=effects.total(APPLIED),
        skipped=effects.total(SKIPPED),
        parked=effects.total(PARKED) if effects.kind not in (Kind.RETRY, Kind.EFFECT) else 0,
        dead=effects.total(DEAD),
        ids=b"".join(effects.identities),
        marks=pack_marks(effects.marks),
        emits=pack_emits([record for _, record in effects.emits]),
    )
