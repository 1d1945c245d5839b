"""Follows the states of sagas in `headrace.saga`, in the transaction that writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace import sql
from headrace.database.pool import Connection
from headrace.errors import StepRemovedError
from headrace.sagas.course import Course


class EndedSaga(NamedTuple):
    """A saga that has ended: how, and how long it took."""

    outcome: str
    seconds: float


async def check_steps(connection: Connection, group: str, partition: int, course: Course) -> None:
    """Return if every open saga of the partition waits for what is declared: else its replies would be passed over.

    Raises: StepRemovedError.
    """
    answered = [step.name for step in course.steps if step.done is not None]
    undone = [step.name for step in course.steps if step.undone is not None]
    row = await connection.fetchrow(sql.saga.WAIT_FOR_OTHERS, group, partition, answered, undone)
    if row is None:
        return
    is_undo = row["status"] == "compensating"
    what, how = ("the undo of the step", "its undo with done=") if is_undo else ("the step", "it with done=")
    raise StepRemovedError(
        f"{group}: {row['sagas']} open sagas of partition {partition} wait for {what} {row['step']!r}, which is not "
        f"declared any more; the first of them is {row['key']!r}. Declare {how} again, as a function that returns None "
        f"if nothing new is to be sent, until GET /sagas/{course.name} shows no saga that waits for it."
    )


async def follow(
    connection: Connection, group: str, partition: int, rows: Sequence[tuple[str, int, bytes]]
) -> list[EndedSaga]:
    """Write where the sagas stand, of (key, version, JSON) sorted by key; return those that have ended with it."""
    keys, _, data = zip(*rows, strict=True)
    written = await connection.fetch(sql.saga.WRITE, group, partition, keys, [raw.decode() for raw in data])
    return [EndedSaga(row["status"], row["seconds"]) for row in written if row["has_ended"]]
