"""Queries on the claims that people have moved: nobody does in a simulation."""

from __future__ import annotations

from headrace import sql
from tests.simulation.store.statements.model import reads
from tests.simulation.store.tables import Row
from tests.simulation.store.transaction import Transaction


@reads(sql.claim_move.WINDOW_FROM)
def window_from(t: Transaction, group: str, topic: str, number: int) -> list[Row]:
    return [Row(sequence=0)]


@reads(sql.claim_move.LAST)
def last(t: Transaction, group: str, number: int) -> list[Row]:
    return []
