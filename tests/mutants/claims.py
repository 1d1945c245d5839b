"""Mistakes about who owns a partition, and where it stands."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, Patch

CLAIM = "app/headrace/engine/claim.py"
CLAIM_SQL = "app/headrace/sql/claim.py"
CLAIM_MODEL = "tests/simulation/store/statements/claim.py"
BATCH = "app/headrace/engine/batch.py"
CONTINUITY = "app/headrace/engine/continuity.py"
TENURE = "app/headrace/engine/tenure.py"
TRANSACT = "app/headrace/engine/transact.py"
LOG_BATCHES = "app/headrace/engine/log_batches.py"

_ADVANCE = """
        if status != "UPDATE 1":
            raise self.fenced()

    def advanced"""
_NO_ADVANCE = """

    def advanced"""
_HELD = 'return held == (row["epoch"], row["token"], row["next_offset"], row["sequence"])'
_WRITE = "            await self.write(await transaction.begin(), batch, effects)\n"
_POSITIONS = "        positions = {p: resume_at(self.holdings[p.topic].claim, bounds[p]) for p in self.partitions}\n"
_HINT = "context.log._groups[group].offsets.get(p, 0)"

CLAIMS = (
    Mutant("no fence", (Patch(CLAIM, _ADVANCE, _NO_ADVANCE),)),
    Mutant("epoch-only fence", (Patch(CLAIM_MODEL, _HELD, 'return held[0] == row["epoch"]'),)),
    Mutant(
        "fence before the writes",
        (
            Patch(
                BATCH,
                _WRITE,
                "            async with self.context.connection() as other:\n"
                "                await batch.holding.claim.guard(other)\n" + _WRITE,
            ),
            Patch(CLAIM_MODEL, "_is_held(row, epoch, token, held_offset, held_sequence)", "bool(row)"),
        ),
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
    ),
    Mutant(
        "offset taken from Kafka",
        (
            Patch(
                TENURE,
                _POSITIONS,
                f"        positions = {{p: {_HINT} for p in self.partitions}}\n",
            ),
        ),
    ),
    Mutant(
        "the larger of Kafka's offset and the claim's",
        (
            Patch(
                TENURE,
                _POSITIONS,
                "        positions = {\n"
                f"            p: max(self.holdings[p.topic].claim.next_offset, {_HINT}) for p in self.partitions\n"
                "        }\n",
            ),
        ),
    ),
    Mutant(
        "records before the seek are accepted",
        (Patch(TENURE, "            if records[0].offset < held.next_offset:\n", "            if False:\n"),),
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
    ),
    Mutant(
        "a commit whose outcome is unknown counts as failed",
        (Patch(TRANSACT, "        return committed\n", "        return False\n"),),
    ),
    Mutant(
        "a commit whose outcome is unknown counts as done",
        (Patch(TRANSACT, "        return committed\n", "        return True\n"),),
    ),
    Mutant(
        "the sequence is not compared",
        (Patch(CLAIM_MODEL, _HELD, 'return held[:3] == (row["epoch"], row["token"], row["next_offset"])'),),
    ),
)
