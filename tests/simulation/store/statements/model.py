"""How the model of a query is written: a function of a transaction and the query's arguments."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

from tests.simulation.store.tables import Row
from tests.simulation.store.transaction import Place, Transaction

Work = Generator[Place, None, Any]
STATEMENTS: dict[str, Callable[..., Work]] = {}
"""By query that locks or writes: what runs it. The result is (status, rows)."""
READS: dict[str, Callable[..., Iterable[Row]]] = {}
"""By query that does neither: what returns its rows."""


def reads(query: str) -> Callable[[Callable[..., Iterable[Row]]], Callable[..., Iterable[Row]]]:
    """Register a function that returns the rows of a query that locks nothing."""

    def register(function: Callable[..., Iterable[Row]]) -> Callable[..., Iterable[Row]]:
        READS[query] = function
        return function

    return register


def writes(query: str, verb: str) -> Callable[[Callable[..., Work]], Callable[..., Work]]:
    """Register a generator that locks and writes rows, and returns how many, or the rows that the query returns."""

    def register(function: Callable[..., Work]) -> Callable[..., Work]:
        def run(transaction: Transaction, *args: Any) -> Work:
            result = yield from function(transaction, *args)
            rows = [] if isinstance(result, int) else result
            return (f"{verb} {result if isinstance(result, int) else len(rows)}", rows)

        STATEMENTS[query] = run
        return function

    return register
