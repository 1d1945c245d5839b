"""Tapes of queries, drawn from a seed, which the model and a real Postgres are to answer in the same way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import msgspec

from headrace import sql
from headrace.engine.group_commit import SmallBatch
from headrace.state.store import columns_of

TOKENS = [UUID(int=number) for number in (1, 2, 3)]
OWNERS = ["pod-1", "pod-2"]
TOPICS = ["notes", "echoes"]
KEYS = [b"a", b"b", b"c"]


@dataclass(frozen=True)
class Letter:
    """Stands for the id of the dead letter that was written as the nth: each side gives its own."""

    number: int


@dataclass(frozen=True)
class Step:
    """One query, or the begin or end of a transaction."""

    query: str
    args: tuple[Any, ...] = ()
    returns: bool = False
    """True if its rows are compared, else how many rows it has written."""


BEGIN, COMMIT, ROLLBACK = Step("begin"), Step("commit"), Step("rollback")


class Tape:
    """Draws the steps of one tape, all of one subscription."""

    def __init__(self, seed: int, group: str) -> None:
        self.chance = Random(f"tape {seed}")
        self.group = group
        self._sequence = 0
        self._letters = 0
        self._numbers = 0

    def draw(self, steps: int) -> list[Step]:
        """Return the steps, some of them in transactions that end in one way or the other."""
        drawn: list[Step] = [Step(sql.claim.ENROLL, (self.group, "notes", TOKENS[0], "log", "one", [0, 1], [0, 3]))]
        while len(drawn) < steps:
            if self.chance.random() < 0.2:
                drawn += [BEGIN, *(self._step() for _ in range(self.chance.randint(1, 5)))]
                drawn.append(self.chance.choice((COMMIT, COMMIT, ROLLBACK)))
            else:
                drawn.append(self._step())
        return [*drawn, *self._readers()]

    def _step(self) -> Step:
        kinds: list[Callable[[], Step]] = [
            self._claim,
            self._claim,
            self._ledger,
            self._state,
            self._lane,
            self._lane,
            self._letter,
            self._timer,
            self._effect,
            self._other,
        ]
        return self.chance.choice(kinds)()

    def _place(self) -> tuple[str, str, int]:
        return (self.group, self.chance.choice(TOPICS), self.chance.randint(0, 1))

    def _claim(self) -> Step:
        chance, group = self.chance, self.group
        owner, topics, number = chance.choice(OWNERS), TOPICS[: chance.randint(1, 2)], chance.randint(0, 1)
        held = (chance.randint(0, 2), chance.choice(TOKENS[:2]))
        offset, sequence = chance.randint(0, 4), chance.randint(0, 2)
        after = (offset + chance.randint(0, 2), sequence + chance.randint(0, 1), chance.randint(0, 2), 7, 8, 9)
        place, topic_id = self._place(), chance.choice((None, "one", "two"))
        return chance.choice(
            (
                Step(sql.claim.ENROLL, (group, place[1], chance.choice(TOKENS), "log", topic_id, [0, 1, 2], [1, 2, 3])),
                Step(sql.claim.KNOWN_PARTITIONS, place[:2], returns=True),
                Step(
                    sql.claim.CLAIM, (*place, chance.choice(TOKENS), owner, chance.randint(0, 5), "log", topic_id), True
                ),
                Step(sql.claim.OWNER_FOR_UPDATE, place, returns=True),
                Step(sql.claim.END_SILENT, (), returns=True),
                Step(sql.claim.HELD, (group, [number]), returns=True),
                Step(sql.claim.POSITIONS, (group,), returns=True),
                Step(sql.claim.HOLDER, (group, number, topics, owner), returns=True),
                Step(sql.claim.LEAVE, (group, [number], topics, owner)),
                Step(sql.claim.RELEASE, (group, number, topics, owner)),
                Step(sql.claim.LOCK_IF_HELD, (*place, *held, offset, sequence), returns=True),
                Step(sql.claim.IS_HELD, (*place, *held, chance.choice(TOKENS)), returns=True),
                Step(sql.claim.ADVANCE, (*place, *held, offset, *after, sequence)),
                Step(
                    sql.claim.ADVANCE_WITH_ROW, (*place, *held, offset, *after, sequence, 0, 3, 2, 1, 0, b"", b"", None)
                ),
                Step(sql.claim.BEGIN_APPLYING, (*place, *held, offset, sequence)),
                Step(sql.claim.LAST_BATCH_FOR_UPDATE, place, returns=True),
                Step(sql.claim.RENEW, (*place, *held, chance.choice(TOKENS))),
                self._batches(held, offset, after, sequence),
                self._batches(held, offset, after, sequence),
            )
        )

    def _batches(self, held: tuple[int, UUID], offset: int, after: tuple[int, ...], sequence: int) -> Step:
        """Return the commit of one or two small batches, with states of some of them."""
        chance, names = self.chance, [field.name for field in msgspec.structs.fields(SmallBatch)]
        places, did = [self._place() for _ in range(chance.randint(1, 2))], (*after, 0, 3, 2, 1, 0)
        batches = [
            dict(zip(names, (number, *place, held[0], str(held[1]), offset, sequence, *did), strict=True))
            for number, place in enumerate(places)
        ]
        states = [
            {
                "batch": chance.randrange(len(places)),
                "state": "notes",
                "key": key.decode(),
                "version": chance.randint(1, 3),
                "data": {"n": chance.randint(0, 9)},
                "ttl": chance.choice((None, "P1D")),
                "class_version": chance.randint(1, 2),
            }
            for key in chance.sample(KEYS, chance.randint(0, 2))
        ]
        count = len(places)
        rows = ([b""] * count, [b""] * count, [chance.choice((None, b"emits")) for _ in places])
        return Step(sql.batch.COMMIT, (json.dumps(batches), *rows, json.dumps(states), count, len(states), "10000"))

    def _ledger(self) -> Step:
        chance, place = self.chance, self._place()
        self._sequence += 1
        ids = bytes(16) * chance.randint(0, 2)
        row = (self._sequence, 0, 1, 2, 3, 4, 5, 6, 7, ids, b"marks", chance.choice((None, b"emits")))
        return chance.choice(
            (
                Step(sql.ledger.INSERT, (*place, *row)),
                Step(sql.ledger.INSERT, (*place, *row)),
                Step(sql.ledger.NEWEST_IDS, (*place, chance.randint(1, 9), chance.randint(1, 3)), returns=True),
                Step(sql.ledger.UNPUBLISHED_EMITS, (*place, chance.randint(0, 5)), returns=True),
            )
        )

    def _state(self) -> Step:
        chance = self.chance
        keys = sorted(key.decode() for key in chance.sample(KEYS, chance.randint(1, 3)))
        rows = columns_of([(key, chance.randint(1, 3), b'{"n": %d}' % chance.randint(0, 9)) for key in keys])
        ttl = chance.choice((None, timedelta(days=1)))
        return chance.choice(
            (
                Step(sql.state.READ, (self.group, "notes", keys), returns=True),
                Step(sql.state.WRITE, (self.group, "notes", 0, *rows, ttl, chance.randint(1, 2))),
                Step(sql.state.WRITE, (self.group, "notes", 1, *rows, ttl, chance.randint(1, 2))),
            )
        )

    def _lane(self) -> Step:
        chance, group, number = self.chance, self.group, self.chance.randint(0, 1)
        keys = sorted(chance.sample(KEYS, chance.randint(1, 3)))
        attempts, due = [chance.randint(0, 3) for _ in keys], [1_800_000_000.0 + chance.randint(0, 9) for _ in keys]
        texts = ["wrong" for _ in keys]
        kinds = [chance.choice((None, "SequenceGapError")) for _ in keys]
        self._numbers += 10
        events = [
            (key, self._numbers + at, "notes", at, 5, key, chance.choice((None, b"value")), b"\x90", "s", "i", "t", "r")
            for at, key in enumerate(keys)
        ]
        numbers = [chance.randint(1, max(1, self._numbers // 10)) * 10 + chance.randint(0, 2) for _ in keys]
        return chance.choice(
            (
                Step(sql.lane.LOAD, (group, number), returns=True),
                Step(sql.lane.DUE_TIMES, (group, number), returns=True),
                Step(sql.lane.OPEN, (group, number, keys, attempts, due, texts, kinds, texts)),
                Step(sql.lane.COUNT_RUN, (group, number, keys, attempts)),
                Step(sql.lane.CLOSE, (group, number, keys)),
                Step(sql.lane.NOTE_DEATH, (group, number, "died")),
                Step(sql.lane.PARK, (group, number, *(list(column) for column in zip(*events, strict=True)))),
                Step(sql.lane.PARK, (group, number, *(list(column) for column in zip(*events, strict=True)))),
                Step(
                    sql.lane.FIRST_EVENTS,
                    (group, number, keys, [chance.randint(1, 2) for _ in keys], chance.randint(0, 12)),
                    True,
                ),
                Step(sql.lane.UNPARK, (group, number, keys, numbers)),
            )
        )

    def _letter(self) -> Step:
        chance, group, number = self.chance, self.group, self.chance.randint(0, 1)
        letters = [Letter(each) for each in range(self._letters)] or [Letter(0)]
        some = chance.sample(letters, min(len(letters), 2))
        if self._letters == 0 or chance.random() < 0.4:
            self._letters += 1
            at = chance.randint(0, 5)
            value = chance.choice((None, b"value"))
            columns = (["notes"], [at], [at * 10], [b"a"], [None], [value], [b"\x90"], ["s"], ["i"], ["t"])
            how = (["gave_up"], ["wrong"], ["ValueError"], [None], [chance.randint(0, 4)])
            return Step(sql.dead_letter.INSERT, (group, number, *columns, *how))
        return chance.choice(
            (
                Step(sql.dead_letter.WAITING_REPLAYS, (group, [0, 1], chance.randint(1, 2), 6), returns=True),
                Step(sql.dead_letter.SETTLE_REPLAYS, (some,), returns=True),
                Step(sql.dead_letter.REOPEN_REPLAYS, (some, ["again" for _ in some])),
                Step(sql.dead_letter.DECIDE, (some[0], "replay", None, "ops", "mended"), returns=True),
                Step(sql.dead_letter.COUNT_OPEN_BY_REASON, (group, [number]), returns=True),
            )
        )

    def _timer(self) -> Step:
        chance, group, number = self.chance, self.group, self.chance.randint(0, 1)
        names = chance.sample(["x", "y", "z"], chance.randint(1, 2))
        past, future = datetime(2020, 1, 1, chance.randint(0, 23), tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
        at = [chance.choice((past, future, None)) for _ in names]
        after = [None if moment is not None else 1e6 for moment in at]
        rows = (["echoes" for _ in names], [b"v" for _ in names], [b"\x90" for _ in names], [None for _ in names])
        types, keys = ["t" for _ in names], [chance.choice(KEYS) for _ in names]
        return chance.choice(
            (
                Step(sql.timer.SET, (group, number, types, keys, names, after, at, *rows)),
                Step(sql.timer.SET, (group, number, types, keys, names, after, at, *rows)),
                Step(sql.timer.CANCEL, (group, types, keys, [chance.choice((None, name)) for name in names])),
                Step(sql.timer.TAKE_DUE, (group, [number], chance.randint(1, 3), chance.randint(1, 5)), returns=True),
                Step(sql.timer.SECONDS_TO_NEXT, (group, [number]), returns=True),
                Step(sql.timer.COUNT_DUE, (group, [0, 1]), returns=True),
                Step(sql.timer.COUNT, (group, [number]), returns=True),
            )
        )

    def _effect(self) -> Step:
        chance, group, number = self.chance, self.group, self.chance.randint(0, 1)
        identities = [bytes([each]) * 16 for each in chance.sample(range(6), chance.randint(1, 3))]
        self._numbers += 10
        numbers = [self._numbers + at for at in range(len(identities))]
        keys, texts = [chance.choice(KEYS) for _ in identities], ["notes" for _ in identities]
        numbered = list(range(len(identities)))
        rows = (
            identities,
            numbers,
            keys,
            texts,
            numbered,
            numbered,
            keys,
            [b"value" for _ in keys],
            [b"\x90" for _ in keys],
        )
        dues = [chance.choice((1_800_000_000.0 + at, math.inf)) for at in numbered]
        failed = ([chance.randint(1, 3) for _ in keys], dues, texts)
        return chance.choice(
            (
                Step(sql.effect.START, (group, number, *rows)),
                Step(sql.effect.START, (group, number, *rows)),
                Step(sql.effect.COUNT_DEATH, (group, number, chance.choice(OWNERS))),
                Step(sql.effect.WAIT, (group, identities, *failed)),
                Step(sql.effect.DUE_TIMES, (group, number), returns=True),
                Step(sql.effect.END, (group, identities)),
                Step(sql.effect.LOAD, (group, number), returns=True),
                Step(sql.effect.LOAD_BEHIND, (group, number, chance.choice(KEYS), 5, bytes(16), 2), returns=True),
                Step(sql.step.REMEMBER, (group, identities, ["call" for _ in keys], ['"yes"' for _ in keys])),
                Step(sql.step.READ, (group, identities), returns=True),
                Step(sql.step.FORGET, (group, identities)),
            )
        )

    def _other(self) -> Step:
        chance, group = self.chance, self.group
        return chance.choice(
            (
                Step(sql.subscription.SET_PAUSED, (group, chance.random() < 0.5)),
                Step(sql.subscription.REQUESTS, (group,), returns=True),
                Step(sql.outage.TELL, (group, "pod-1", "note", "wrong", 1_800_000_000.0)),
                Step(sql.outage.OVER, (group, "pod-1")),
            )
        )

    def _readers(self) -> list[Step]:
        """Read what the tape has left behind."""
        group = self.group
        steps = [
            Step(sql.claim.POSITIONS, (group,), returns=True),
            Step(sql.claim.HELD, (group, [0, 1, 2]), returns=True),
            Step(sql.dead_letter.WAITING_REPLAYS, (group, [0, 1], 100, 10_000), returns=True),
            Step(sql.timer.COUNT, (group, [0, 1]), returns=True),
            Step(sql.state.READ, (group, "notes", ["a", "b", "c"]), returns=True),
        ]
        for number in (0, 1):
            steps.append(Step(sql.effect.LOAD, (group, number), returns=True))
            steps.append(Step(sql.claim_move.LAST, (group, number), returns=True))
            steps.append(Step(sql.lane.LOAD, (group, number), returns=True))
            steps.append(Step(sql.lane.FIRST_EVENTS, (group, number, KEYS, [100] * len(KEYS), 100_000), returns=True))
            for topic in TOPICS:
                steps.append(Step(sql.claim_move.WINDOW_FROM, (group, topic, number), returns=True))
                steps.append(Step(sql.ledger.NEWEST_IDS, (group, topic, number, 1_000, 1_000), returns=True))
                steps.append(Step(sql.claim.CLAIM, (group, topic, number, TOKENS[2], "reader", 0, "log", None), True))
        return steps
