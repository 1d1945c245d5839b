"""A plan as programs and people read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace.handlers.subscription import Subscription
from headrace.rewind.plan import Plan

MOST_LINES = 20
"""Partitions that are named to a person."""


def plan_of(plan: Plan) -> dict[str, Any]:
    """Return the plan, JSON-ready."""
    return {
        "subscription": plan.group,
        "partitions": [
            {"topic": move.place.topic, "partition": move.place.partition, "from": move.claimed, "to": move.offset}
            for move in plan.moves
        ],
        "events": plan.events,
        "states": plan.states,
        "reads": plan.reads,
        "changed_by_hand": plan.changed_by_hand,
        "effects": plan.effects,
        "kept": dict(plan.kept),
    }


def lines_of(plan: Plan, subscription: Subscription) -> Iterator[str]:
    """Yield what a person has to know before the rewind is done."""
    for move in plan.moves[:MOST_LINES]:
        yield f"{move.place.topic}/{move.place.partition} goes back from offset {move.claimed:,} to {move.offset:,}"
    if len(plan.moves) > MOST_LINES:
        yield f"and {len(plan.moves) - MOST_LINES} other partitions"
    yield f"{plan.events:,} offsets are applied again"
    yield _states(plan)
    if plan.changed_by_hand and plan.states != "none":
        yield f"{plan.changed_by_hand:,} states were changed by hand, which is lost where they are made anew"
    kept = plan.kept
    if kept["parked"] or kept["dead_letters"]:
        yield f"{kept['parked']:,} parked events and {kept['dead_letters']:,} dead letters are read again from the log"
    if kept["edited"]:
        yield f"{kept['edited']:,} of these dead letters were edited; they are met again as the log has them"
    if kept["discarded"]:
        yield f"{kept['discarded']:,} discarded dead letters stay out"
    if subscription.effects:
        yield "effects are started again" if plan.effects else "effects are not started again"


def _states(plan: Plan) -> str:
    if plan.states == "none":
        return "it has no states"
    if plan.states == "reset":
        return f"{plan.kept['states']:,} states are deleted, and made anew by what is applied"
    return f"states of the keys that have events there are made again as they were: {plan.reads:,} offsets are read"
