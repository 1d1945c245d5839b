"""What each query of `headrace.sql` does, one module for each table as there."""

from tests.simulation.store.statements import (
    batch,
    claim,
    claim_move,
    dead_letter,
    effect,
    journal,
    lane,
    ledger,
    outage,
    state,
    subscription,
    timer,
)
from tests.simulation.store.statements.model import READS, STATEMENTS

__all__ = [
    "READS",
    "STATEMENTS",
    "batch",
    "claim",
    "claim_move",
    "dead_letter",
    "effect",
    "journal",
    "lane",
    "ledger",
    "outage",
    "state",
    "subscription",
    "timer",
]
