"""Says what a rewind would do, before anything is done: where each claim goes, and what becomes of what is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from math import ceil
from typing import Any, Literal, NamedTuple

from headrace import sql
from headrace.database.pool import Connection
from headrace.engine.continuity import refuse_other_log
from headrace.errors import ConfigurationError
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Bounds, Log, TopicPartition
from headrace.projections.projection import Projection

States = Literal["none", "reset", "remade"]


class Target(NamedTuple):
    """Where to go back to: an offset, a time, or, without both, the beginning; one partition or all."""

    offset: int | None = None
    at: datetime | None = None
    partition: int | None = None


class Move(NamedTuple):
    """What happens to one claim."""

    place: TopicPartition
    begun: int
    """The offset at which the subscription began."""
    offset: int
    """Where it goes."""
    claimed: int
    """The next offset that it comes from: what is between is applied again."""


class Plan(NamedTuple):
    """What a rewind would do."""

    group: str
    moves: Sequence[Move]
    states: States
    """What becomes of the states: there are none, all of these partitions are deleted, or those of some keys remade."""
    changed_by_hand: int
    """States of the subscription that people have written; what they wrote is lost where a state is made anew."""
    effects: bool
    """True if effects are started again."""
    kept: Mapping[str, int]
    """What is taken out of the tables: parked events, dead letters and so on."""
    moves_before: int
    """How often claims of the subscription had been moved when the plan was made."""

    @property
    def events(self) -> int:
        """Offsets that are applied again."""
        return sum(move.claimed - move.offset for move in self.moves)

    @property
    def reads(self) -> int:
        """Offsets that are read before, to remake states."""
        return sum(move.claimed - move.begun for move in self.moves) if self.states == "remade" else 0

    @property
    def partitions(self) -> list[int]:
        """The partition numbers that are moved."""
        return sorted({move.place.partition for move in self.moves})


async def make_plan(
    connection: Connection,
    log: Log,
    subscription: Subscription,
    target: Target,
    *,
    effects: bool = False,
    own_sql: bool = False,
) -> Plan:
    """Return what a rewind would do; changes nothing.

    Raises: ConfigurationError (it cannot be done, why, and what to do), TransportError.
    """
    refuse_kinds(subscription, own_sql=own_sql, is_whole=target.offset is None and target.at is None)
    moves_before = await connection.fetchval(sql.claim_move.COUNT, subscription.group)
    if subscription.states:
        refuse_several_topics(subscription)
    moves = await find_moves(connection, log, subscription, target)
    if not moves:
        raise ConfigurationError(
            f"{subscription.name!r} has applied nothing behind that place: nothing is to do again."
        )
    states: States = "none"
    if subscription.states:
        await refuse_unknown_order(connection, subscription)
        states = "reset" if all(move.offset == move.begun for move in moves) else "remade"
        if states == "remade":
            refuse_expiring(subscription)
    by_hand = await connection.fetchval(sql.state_change.COUNT, subscription.group) if subscription.states else 0
    kept = await _kept(connection, subscription.group, moves, states)
    return Plan(subscription.group, moves, states, by_hand, effects, kept, moves_before)


def refuse_stale(plan: Plan, moves_before: int, stands: Mapping[TopicPartition, int]) -> None:
    """Refuse a plan after which claims were moved, so that it may lead forward. `stands` are their next offsets.

    Raises: ConfigurationError.
    """
    if plan.moves_before != moves_before or any(stands.get(move.place, -1) < move.offset for move in plan.moves):
        raise ConfigurationError(
            f"claims of {plan.group} were moved by somebody else after this rewind was planned, so that the plan does "
            "not hold any more; nothing was changed: plan it again, and see whether it is still to be done."
        )


def refuse_kinds(subscription: Subscription, *, own_sql: bool, is_whole: bool) -> None:
    """Refuse a subscription whose handlers write what nobody can take back. Raises: ConfigurationError."""
    name = subscription.name
    if isinstance(subscription, Projection):
        raise ConfigurationError(
            f"{name!r} is a projection; build its table again: headrace rebuild MODULE:APP {name}."
        )
    writers = [each.name for each in subscription.handlers.values() if each.signature.wants_transaction]
    if writers and not own_sql:
        raise ConfigurationError(
            f"{name!r}: {writers[0]} takes a Transaction, and what its own SQL wrote cannot be taken back here; undo "
            "it, or see that it may run again, then pass --own-sql."
        )
    if writers and subscription.states and not is_whole:
        raise ConfigurationError(
            f"{name!r}: {writers[0]} takes a Transaction, so its states cannot be remade without running its SQL; go "
            "back to the beginning."
        )


def refuse_several_topics(subscription: Subscription) -> None:
    """Refuse to apply events of several topics again, which may come in another order. Raises: ConfigurationError."""
    if len(subscription.topics) > 1:
        raise ConfigurationError(
            f"{subscription.name!r} has states and takes events of {len(subscription.topics)} topics, which would come "
            "in another order the second time, such as an answer before its question; see the difference by headrace "
            "replay --dry-run, and mend single keys by headrace state put."
        )


async def refuse_unknown_order(connection: Connection, subscription: Subscription) -> None:
    """Refuse to run events again whose order within a key the log does not tell. Raises: ConfigurationError."""
    name = subscription.name
    for row in await connection.fetch(sql.claim_move.HINDRANCES, subscription.group):
        if row["action"] == "add":
            why = "has got partitions since, so that the earlier events of some keys are in other partitions"
        else:
            why = "was accepted from another log, which held its earlier events"
        raise ConfigurationError(
            f"{name!r}: the topic {row['topic']!r} {why}; its states cannot be made again: mend single keys by "
            "headrace state put."
        )


def refuse_expiring(subscription: Subscription) -> None:
    """Refuse to make states again that were new between two events. Raises: ConfigurationError."""
    for state in subscription.states.values():
        if state.keeping.ttl is not None:
            raise ConfigurationError(
                f"{subscription.name!r}: states of {state.model.__name__} expire, and the log does not tell when; go "
                "back to the beginning, or mend single keys by headrace state put."
            )


async def find_moves(connection: Connection, log: Log, subscription: Subscription, target: Target) -> list[Move]:
    """Return where each claim of the target goes; those that are not beyond it are left out.

    Of a subscription with states they stay in if one of another topic goes back that has the same keys.

    Raises: ConfigurationError (the log does not hold what it takes), TransportError.
    """
    claims = await _claims(connection, log, subscription, target)
    is_whole = target.offset is None and target.at is None
    begun = await _begun(connection, subscription, claims, is_whole=is_whole)
    bounds = await log.bounds(list(claims))
    moves = []
    for place, claimed in sorted(claims.items()):
        offset = await _offset(log, place, bounds[place], begun[place], target)
        moves.append(Move(place, begun[place], min(offset, claimed), claimed))
    back = {move.place for move in moves if move.offset < move.claimed}
    numbers = {place.partition for place in back} if subscription.states else set()
    moves = [move for move in moves if move.place in back or move.place.partition in numbers]
    for move in moves:
        _refuse_lost(subscription, move, bounds[move.place])
    return moves


async def _claims(
    connection: Connection, log: Log, subscription: Subscription, target: Target
) -> dict[TopicPartition, int]:
    """Return the next offsets of the claims that are meant."""
    rows = await connection.fetch(sql.claim.POSITIONS, subscription.group)
    await refuse_other_log(log, subscription.name, rows)
    number = target.partition
    claims = {
        TopicPartition(row["topic"], row["partition"]): row["next_offset"]
        for row in rows
        if number in (None, row["partition"])
    }
    if not rows:
        raise ConfigurationError(f"{subscription.name!r} has not begun yet, so there is nothing to do again.")
    if not claims:
        raise ConfigurationError(f"{subscription.name!r} has no partition {number}; it has {_counted(rows)}.")
    if target.offset is not None and len({place.topic for place in claims}) > 1:
        raise ConfigurationError(
            f"{subscription.name!r} takes events of {len(subscription.topics)} topics, and an offset belongs to one; "
            "go back to a time."
        )
    if target.offset is not None and len(claims) > 1:
        raise ConfigurationError(
            f"{subscription.name!r} has {_counted(rows)}, and an offset belongs to one: name it with --partition, or "
            "go back to a time."
        )
    return claims


def _counted(rows: Sequence[Any]) -> str:
    return f"{len(rows)} partitions" if len(rows) != 1 else "one partition"


async def _begun(
    connection: Connection, subscription: Subscription, places: Collection[TopicPartition], *, is_whole: bool
) -> dict[TopicPartition, int]:
    """Return where the subscription began on each partition: by the ledger's first row, else at the log's beginning.

    Raises: ConfigurationError (it has to be known, since there are states or it `is_whole`, and is not).
    """
    firsts = {
        TopicPartition(row["topic"], row["partition"]): row["first_offset"]
        for row in await connection.fetch(sql.ledger.FIRST_ROWS, subscription.group)
        if row["sequence"] == 1
    }
    unknown = [place for place in places if place not in firsts]
    if unknown and subscription.start == "latest" and (subscription.states or is_whole):
        topic, partition = unknown[0]
        advice = (
            "its states cannot be made again: mend single keys by headrace state put."
            if subscription.states
            else "go back to an offset or to a time."
        )
        raise ConfigurationError(
            f"{subscription.name!r} started at the end that {topic}/{partition} had then, and the ledger does not "
            f"reach back to it; {advice}"
        )
    return {place: firsts.get(place, 0) for place in places}


async def _offset(log: Log, place: TopicPartition, bounds: Bounds, begun: int, target: Target) -> int:
    if target.offset is not None:
        return max(begun, target.offset)
    if target.at is not None:
        return max(begun, bounds.begin, await log.offset_at(place, max(0, ceil(target.at.timestamp() * 1_000))))
    return begun


def _refuse_lost(subscription: Subscription, move: Move, bounds: Bounds) -> None:
    """Refuse a place that retention has passed. Raises: ConfigurationError."""
    where = f"{move.place.topic}/{move.place.partition}"
    first = move.begun if subscription.states else move.offset
    if bounds.begin <= first:
        return
    if not subscription.states:
        raise ConfigurationError(
            f"{where} begins at offset {bounds.begin}, and retention has taken what was before; go back to that offset "
            "or later: --to-offset, or --to-time."
        )
    raise ConfigurationError(
        f"{where} begins at offset {bounds.begin}, but the states of {subscription.name!r} are made of events from "
        f"offset {first} on, which retention has taken; mend single keys by headrace state put, and keep the topic for "
        "longer."
    )


async def _kept(connection: Connection, group: str, moves: Sequence[Move], states: States) -> dict[str, int]:
    """Count what is behind the places."""
    offsets = {move.place: move.offset for move in moves}
    parked = await connection.fetch(sql.lane.PARKED_PLACES, group)
    kept = {"parked": 0, "dead_letters": 0, "discarded": 0, "edited": 0}
    for topic, partition, offset in parked:
        kept["parked"] += offset >= offsets.get(TopicPartition(topic, partition), offset + 1)
    for move in moves:
        for row in await connection.fetch(sql.dead_letter.OF_RANGE, group, *move.place, move.offset):
            is_kept = row["decision"] == "discard" and row["event_id"] is not None
            kept["discarded" if is_kept else "dead_letters"] += 1
            kept["edited"] += row["is_edited"] and not is_kept
    if states == "reset":
        numbers = sorted({move.place.partition for move in moves})
        kept["states"] = await connection.fetchval(sql.state.COUNT_OF_PARTITIONS, group, numbers)
    return kept
