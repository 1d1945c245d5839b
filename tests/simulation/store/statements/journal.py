"""A table of the team's own, which a handler writes through its transaction."""

from __future__ import annotations

from tests.simulation.store.statements.model import Work, writes
from tests.simulation.store.transaction import Transaction

NOTE = "insert into journal (page, number) values ($1, $2)"


@writes(NOTE, "INSERT 0")
def note(t: Transaction, page: str, number: int) -> Work:
    key = (t.server.new_id(),)
    yield ("journal", key)
    t.put("journal", key, {"page": page, "number": number})
    return 1
