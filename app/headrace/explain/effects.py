"""Tells where the effect of an event stands, from the rows of calls that are not done, and of their steps."""

from __future__ import annotations

from headrace import sql
from headrace.database.pool import Connection, Row
from headrace.envelope import identity
from headrace.explain.fate import EffectFate, Fate
from headrace.handlers.subscription import Subscription


async def with_effect(
    connection: Connection, subscription: Subscription, fate: Fate, event_id: str, given_up_by: str | None = None
) -> Fate:
    """Return the fate with where the event's effect stands, if it was started. Raises: asyncpg's errors.

    The fate, applied or a dead letter of the handler `given_up_by`, was read in the same snapshot: a row that is gone
    means that its effect has ended.
    """
    effect = subscription.effects.get(fate.type or "")
    if effect is None or fate.source is None or fate.type is None:
        return fate
    place = subscription.group, identity(fate.source, fate.type, event_id)
    row = await connection.fetchrow(sql.explain.EFFECT, *place)
    steps = [each["name"] for each in await connection.fetch(sql.explain.STEPS, *place)]
    name = effect.handler.name
    if row is not None:
        return fate._replace(effect=_standing(name, row, steps))
    if fate.outcome == "applied":
        return fate._replace(effect=EffectFate(name, "ended", "it has ended."))
    if given_up_by != name:
        return fate  # the event never came to its effect
    return fate._replace(effect=EffectFate(name, "failed", "it was given up on, as the dead letter says.", 0, steps))


def _standing(name: str, row: Row, steps: list[str]) -> EffectFate:
    attempts = row["attempts"]
    failed = f"it failed {attempts} times ({row['error']})" if row["error"] else f"{attempts} of its runs were cut off"
    if row["held"]:
        return EffectFate(name, "held", f"{row['error']}; it waits for `headrace effects retry`.", attempts, steps)
    if row["is_behind"]:
        return EffectFate(name, "waits", "it waits behind an earlier call of its key.", attempts, steps)
    if row["due_at"] is not None:
        detail = f"{failed} and is called again at {row['due_at']:%H:%M:%S} UTC."
        return EffectFate(name, "waits", detail, attempts, steps)
    since = f"it was started at {row['started_at']:%Y-%m-%d %H:%M:%S} UTC and has not ended"
    detail = f"{since}; {failed}." if attempts else f"{since}."
    return EffectFate(name, "started", detail, attempts, steps)
