"""I5, I6: ledger rows follow each other without a gap and end at their claim; a claim never goes back."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from tests.simulation.checkers.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation
    from tests.simulation.store.transaction import Transaction


def check_claims(simulation: Simulation, transaction: Transaction) -> None:
    """Compare each claim that is written with the one before. Raises: Violation."""
    for (table, key), after in transaction.written.items():
        before = simulation.server.tables.get("claim", key) if table == "claim" else None
        if before is None or after is None:
            continue
        for column in ("epoch", "next_offset", "sequence", "emitted_through"):
            if after[column] < before[column]:
                raise Violation(
                    "I6 claims never go back", f"{column} of {key} fell from {before[column]} to {after[column]}"
                )
        if after["emitted_through"] > after["sequence"]:
            raise Violation("I4 emits leave", f"{key} marks emits of batches that do not exist")
        rows = [row for (name, place), row in transaction.written.items() if name == "ledger" and place[:3] == key]
        if after["sequence"] != before["sequence"] + len(rows):
            raise Violation("I5 ledger is contiguous", f"{key} counts {after['sequence']}, with {len(rows)} new rows")
        if not rows and after["next_offset"] != before["next_offset"]:
            raise Violation("I5 ledger is contiguous", f"{key} moved to {after['next_offset']} without a row")


def check_ledger(simulation: Simulation, transaction: Transaction) -> None:
    """Compare each ledger row that is written with its claim. Raises: Violation."""
    for (table, key), row in transaction.written.items():
        if table != "ledger" or row is None:
            continue
        before = simulation.server.tables.get("claim", key[:3])
        after = transaction.written.get(("claim", key[:3]))
        if before is None or after is None:
            raise Violation("I5 ledger ends at the claim", f"a row of {key[:3]} was written without its claim")
        if row["sequence"] != before["sequence"] + 1 or row["first_offset"] != before["next_offset"]:
            raise Violation("I5 ledger is contiguous", f"row {key[3]} of {key[:3]} does not continue the one before")
        if row["next_offset"] != after["next_offset"] or row["sequence"] != after["sequence"]:
            raise Violation("I5 ledger ends at the claim", f"row {key[3]} of {key[:3]} is not where its claim is")
        if row["epoch"] != before["epoch"]:
            raise Violation("I7 the fence holds", f"row {key[3]} of {key[:3]} is of epoch {row['epoch']}")


def check_whole_ledger(simulation: Simulation) -> None:
    """Compare the whole ledger with the claims. Raises: Violation."""
    tables = simulation.server.tables
    for claim in tables.all("claim"):
        place = (claim["subscription"], claim["topic"], claim["partition"])
        rows = sorted(tables.group("ledger", place).values(), key=lambda row: int(row["sequence"]))
        if [row["sequence"] for row in rows] != list(range(1, claim["sequence"] + 1)):
            raise Violation("I5 ledger is contiguous", f"{place} has rows {[row['sequence'] for row in rows]}")
        for before, after in pairwise(rows):
            if after["first_offset"] != before["next_offset"]:
                raise Violation("I5 ledger is contiguous", f"{place} has a gap before row {after['sequence']}")
        if rows and rows[-1]["next_offset"] != claim["next_offset"]:
            raise Violation("I5 ledger ends at the claim", f"{place} ends elsewhere than its claim")
