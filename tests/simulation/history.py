"""What was committed so far, as the checkers need it to judge what comes next."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.cloudevents import decode_record
from headrace.ledger.rows import unpack_emits
from headrace.log.stored import stored_record
from tests.simulation.service import GROUPS

if TYPE_CHECKING:
    from tests.simulation.loop import Process
    from tests.simulation.store.tables import Tables, Values
    from tests.simulation.store.transaction import Transaction


class Started(NamedTuple):
    """An effect that was started, and its place among all that were."""

    partition: int
    identity: bytes
    order: int


class Kept(NamedTuple):
    """An answer of a step: the number of the commit that has kept it, and whose it was."""

    commit: int
    process: Process | None


class History:
    """What the database has had, and has."""

    def __init__(self) -> None:
        self.applied: set[tuple[str, int]] = set()
        """Events of the stream that were ever applied, also in a future that a restore took back."""
        self.emitted: set[str] = set()
        """The ids of the emits in the ledger."""
        self.started: dict[tuple[str, int], Started] = {}
        """Effects that were ever started, by page and number."""
        self.answers: dict[bytes, Kept] = {}
        """Answers of steps, by the identity of their event."""
        self.owned_since: dict[tuple[Any, ...], int] = {}
        """The number of the commit with which a claim has got its owner, by the key of its row."""
        self._owners: dict[tuple[Any, ...], str | None] = {}
        self._commits = 0
        self.called: dict[tuple[Any, str], Started] = {}
        """The latest call of a page, by the token of its owner."""
        self.deaths: Counter[tuple[str, int]] = Counter()
        """How often an owner has taken a partition of `echoes` from one that had died, and has not counted it."""
        self.heard: dict[str, list[int]] = {}
        """What was ever added to a state that expires, by page."""

    def follow(self, transaction: Transaction) -> None:
        """Note what is committed now."""
        self._commits += 1
        for (table, key), row in transaction.written.items():
            if row is not None and table == "state" and row["subscription"] == GROUPS["notes"]:
                self.applied |= {(row["key"], number) for number in json.loads(row["data"])["numbers"]}
            elif row is not None and table == "state" and key[1] == "recent":
                heard = self.heard.setdefault(row["key"], [])
                heard += [number for number in json.loads(row["data"])["numbers"] if number not in heard]
            elif row is not None and table == "step":
                self.answers[row["identity"]] = Kept(self._commits, transaction.session.process)
            elif row is not None and table == "claim" and row["owner"] != self._owners.get(key):
                self._owners[key], self.owned_since[key] = row["owner"], self._commits
            elif row is not None and table == "ledger":
                self.emitted.update(emit_ids(row))
            elif row is not None and table == "effect":
                data = json.loads(decode_record(stored_record(row, row["partition"]))[1])
                started = Started(row["partition"], row["identity"], len(self.started))
                self.started.setdefault((data["page"], data["number"]), started)

    def restore(self, tables: Tables) -> None:
        """Forget the emits that the database has no longer."""
        self.emitted = {id_ for row in tables.all("ledger") for id_ in emit_ids(row)}


def emit_ids(row: Values) -> tuple[str, ...]:
    """Return the ids of a ledger row's emits."""
    return _ids(row["emits"]) if row["emits"] else ()


@lru_cache(64)  # each row is looked at by a checker, and then by the history
def _ids(emits: bytes) -> tuple[str, ...]:
    return tuple(decode_record(record)[0].id for record in unpack_emits(emits))
