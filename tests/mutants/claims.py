"""Mistakes about who owns a partition, and where it stands."""

from __future__ import annotations

from dataclasses import replace

from tests.mutants.hunts import LOST_ANSWER, LOST_COMMIT, TAKEN_OVER, WENT_BACK, dead_at, frozen_at
from tests.mutants.mutant import Hunt, Mutant, Patch

CLAIM = "app/headrace/engine/claim.py"
CLAIM_SQL = "app/headrace/sql/claim.py"
GROUP_SQL = "app/headrace/sql/batch.py"
GROUP_MODEL = "tests/simulation/store/statements/batch.py"
CLAIM_MODEL = "tests/simulation/store/statements/claim.py"
BATCH = "app/headrace/engine/batch.py"
CONTINUITY = "app/headrace/engine/continuity.py"
TAKEOVER = "app/headrace/engine/takeover.py"
TENURE = "app/headrace/engine/tenure.py"
TRANSACT = "app/headrace/engine/transact.py"
LOG_BATCHES = "app/headrace/engine/log_batches.py"

_ADVANCE = """
        if status.rpartition(" ")[2] != "1":
            raise self.fenced()

    def advanced"""
_NO_ADVANCE = """

    def advanced"""
_HELD = 'return held == (row["epoch"], row["token"], row["next_offset"], row["sequence"])'
_WRITE = "            await self.write(await transaction.begin(), batch, effects)\n"
_POSITIONS = "        positions = {p: resume_at(self._holdings[p.topic].claim, bounds[p]) for p in self._partitions}\n"
_HINT = "context.log._groups[group].offsets.get(p, 0)"
_ASK = (
    "        import asyncio\n\n        from tests.mutants.committed import committed\n\n"
    "        of_kafka = await asyncio.to_thread(committed, context.settings.log, group, self._partitions)\n"
)
_IN_ADVANCE = "token = $5 and next_offset = $6\n  and sequence = $13\n"
_IN_LOCK = "token = $5 and next_offset = $6\n  and sequence = $7\nfor update\n"
_IN_BEGIN_APPLYING = 'token = $5 and next_offset = $6\n  and sequence = $7\n"""\n'
_HOLES = Hunt(("abort a transaction",), faults=3)

CLAIMS = (
    Mutant("no fence", (Patch(CLAIM, _ADVANCE, _NO_ADVANCE),), hunt=frozen_at("before BEGIN", "handlers are to run")),
    Mutant(
        "epoch-only fence",
        (
            Patch(CLAIM_SQL, _IN_ADVANCE, "($5::uuid, $6::bigint, $13::bigint) is not null\n"),
            Patch(CLAIM_SQL, _IN_LOCK, "($5::uuid, $6::bigint, $7::bigint) is not null\nfor update\n"),
            Patch(CLAIM_SQL, _IN_BEGIN_APPLYING, '($5::uuid, $6::bigint, $7::bigint) is not null\n"""\n'),
        ),
        simulated=(Patch(CLAIM_MODEL, _HELD, 'return held[0] == row["epoch"]'),),
        hunt=WENT_BACK,
    ),
    Mutant(
        "fence before the writes",
        (
            Patch(
                BATCH,
                _WRITE,
                "            async with self.context.connection() as other:\n"
                "                await batch.holding.claim.guard(other)\n" + _WRITE,
            ),
            Patch(
                CLAIM_SQL,
                f"epoch = $4 and {_IN_ADVANCE}",
                "($4::bigint, $5::uuid, $6::bigint, $13::bigint) is not null\n",
            ),
        ),
        simulated=(Patch(CLAIM_MODEL, "_is_held(row, epoch, token, held_offset, held_sequence)", "bool(row)"),),
        hunt=frozen_at("before BEGIN"),
    ),
    Mutant(
        "a group's claims are not counted",
        (Patch(GROUP_SQL, "(select count(*) from moved) = $6::int", "$6::int > 0"),),
        simulated=(Patch(GROUP_MODEL, "(written, moved) != (state_count, batch_count)", "written != state_count"),),
        hunt=frozen_at("a group is to be committed"),
    ),
    Mutant(
        "a group's claims are not compared",
        (
            Patch(
                GROUP_SQL,
                "      and held.epoch = batch.epoch and held.token = batch.token and held.next_offset = "
                "batch.held_offset\n      and held.sequence = batch.held_sequence\n",
                "",
            ),
        ),
        simulated=(Patch(CLAIM_MODEL, "_is_held(row, epoch, token, held_offset, held_sequence)", "bool(row)"),),
        hunt=frozen_at("a group is to be committed"),
    ),
    Mutant(
        "statements outside of the transaction",
        (
            Patch(
                BATCH,
                _WRITE,
                "            async with self.context.connection() as other:\n"
                "                await self.write(other, batch, effects)\n",
            ),
        ),
        hunt=dead_at("states are written", "the ledger is written"),
    ),
    Mutant(
        "offset taken from Kafka",
        simulated=(Patch(TAKEOVER, _POSITIONS, f"        positions = {{p: {_HINT} for p in self._partitions}}\n"),),
        on_servers=(Patch(TAKEOVER, _POSITIONS, f"{_ASK}        positions = of_kafka\n"),),
        hunt=WENT_BACK,
    ),
    Mutant(
        "the larger of Kafka's offset and the claim's",
        simulated=(
            Patch(
                TAKEOVER,
                _POSITIONS,
                "        positions = {\n"
                f"            p: max(self._holdings[p.topic].claim.next_offset, {_HINT}) for p in self._partitions\n"
                "        }\n",
            ),
        ),
        on_servers=(
            Patch(
                TAKEOVER,
                _POSITIONS,
                f"{_ASK}        positions = {{\n"
                "            p: max(self._holdings[p.topic].claim.next_offset, of_kafka[p]) for p in self._partitions\n"
                "        }\n",
            ),
        ),
        hunt=WENT_BACK,
    ),
    Mutant(
        "records before the seek are accepted",
        (Patch(TENURE, "            if records[0].offset < held.next_offset:\n", "            if False:\n"),),
        hunt=TAKEN_OVER,
    ),
    Mutant(
        "next offset is the first one plus the batch's size",
        (
            Patch(
                LOG_BATCHES,
                "decode, last.offset + 1, Fingerprint.of(last), is_probe)",
                "decode, claim.next_offset + len(records), Fingerprint.of(last), is_probe)",
            ),
        ),
        hunt=_HOLES,
    ),
    Mutant(
        "holes are taken for a loss",
        (
            Patch(
                CONTINUITY,
                "    if claim.last is None or record.offset != claim.last.offset or claim.last.matches(record):\n",
                "    is_next = claim.last is None or record.offset <= claim.last.offset + 1\n"
                "    if is_next and (\n"
                "        claim.last is None or record.offset != claim.last.offset or claim.last.matches(record)\n"
                "    ):\n",
            ),
        ),
        hunt=_HOLES,
    ),
    Mutant(
        "a commit whose outcome is unknown counts as failed",
        (Patch(TRANSACT, "        return committed\n", "        return False\n"),),
        hunt=LOST_ANSWER,
    ),
    Mutant(
        "a commit whose outcome is unknown counts as done",
        (Patch(TRANSACT, "        return committed\n", "        return True\n"),),
        hunt=LOST_COMMIT,
    ),
    Mutant(
        "the sequence is not compared",
        (
            Patch(CLAIM_SQL, _IN_ADVANCE, _IN_ADVANCE.replace("sequence = $13", "$13::bigint is not null")),
            Patch(CLAIM_SQL, _IN_LOCK, _IN_LOCK.replace("sequence = $7", "$7::bigint is not null")),
            Patch(CLAIM_SQL, _IN_BEGIN_APPLYING, _IN_BEGIN_APPLYING.replace("sequence = $7", "$7::bigint is not null")),
            Patch(GROUP_SQL, "\n      and held.sequence = batch.held_sequence\n", "\n"),
        ),
        simulated=(Patch(CLAIM_MODEL, _HELD, 'return held[:3] == (row["epoch"], row["token"], row["next_offset"])'),),
        hunt=replace(WENT_BACK, shares={"reminds": 0.2}),
    ),
)
