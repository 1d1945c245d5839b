"""Mistakes about what becomes of an event."""

from __future__ import annotations

from dataclasses import replace

from tests.mutants.hunts import DOOMED, TROUBLED
from tests.mutants.mutant import Hunt, Mutant, Patch

CLAIM = "app/headrace/engine/claim.py"
RUN = "app/headrace/engine/run.py"
RETRY = "app/headrace/engine/retry.py"
SETTLE = "app/headrace/engine/settle.py"
READER = "app/headrace/log/kafka_reader.py"
READER_MODEL = "tests/simulation/log/client.py"

LANES = "app/headrace/engine/lanes.py"
_AHEAD = "            if failed and key in failed:\n"
_AHEAD_ASYNC = "            if key in self.failed_keys:\n"

EVENTS = (
    Mutant(
        "the head of a lane is overtaken",
        (
            Patch(
                LANES,
                "                if item.key in by_key:\n",
                "                if False:\n",
            ),
        ),
        hunt=TROUBLED,
    ),
    Mutant(
        "later events of a key run beside a failed one of their batch",
        (
            Patch(RUN, _AHEAD, "            if False:\n"),
            Patch(RUN, _AHEAD_ASYNC, "            if False:\n"),
        ),
        hunt=TROUBLED,
    ),
    Mutant(
        "a retry is counted twice",
        (Patch(RETRY, "lanes[key].attempts + 1 for key in keys", "lanes[key].attempts + 2 for key in keys"),),
        hunt=TROUBLED,
    ),
    Mutant(
        "an attempt is counted after its run",
        (
            Patch(RETRY, "                await self._count(holding, keys)\n", "                pass\n"),
            Patch(
                RETRY,
                "            self._follow(keys, ",
                "            async with processor.turn():\n"
                "                await self._count(holding, [key for key in keys if key in self._lanes.by_key])\n"
                "            self._follow(keys, ",
            ),
        ),
        hunt=DOOMED,
    ),
    Mutant(
        "the death of an owner in a lane's run is not noted",
        (
            Patch(
                CLAIM,
                "            await connection.execute(sql.lane.NOTE_DEATH, group, partition.partition, KILLED)\n",
                "            pass\n",
            ),
        ),
        hunt=DOOMED,
    ),
    Mutant(
        "a dead letter takes its followers along",
        (
            Patch(
                SETTLE,
                "            effects.dead.append((item, decided.attempts))\n        elif",
                "            effects.dead.append((item, decided.attempts))\n"
                "            effects.released += items[index:]\n"
                "            after.events = 0\n"
                "            return after\n"
                "        elif",
            ),
        ),
        hunt=replace(TROUBLED, events=2_500, shares={"fail": 0.3, "reject": 0.2}),
    ),
    Mutant(
        "read_uncommitted",
        simulated=(
            Patch(
                READER_MODEL,
                "            records = [record for record in partition.places[offset:end] if record is not None]\n",
                "            aborted, found_there = partition.aborted, enumerate(partition.places[:end])\n"
                "            everything = [record or aborted.get(at) for at, record in found_there]\n"
                "            records = [record for record in everything[offset:] if record is not None]\n",
            ),
        ),
        on_servers=(Patch(READER, 'isolation_level="read_committed"', 'isolation_level="read_uncommitted"'),),
        hunt=Hunt(("abort a transaction",), faults=2),
    ),
    Mutant(
        "what a failed handler emitted is kept",
        (Patch(RUN, "        self.emitter.undo()\n", ""),),
        hunt=TROUBLED,
    ),
    Mutant(
        "what a failed handler changed is kept",
        (Patch(RUN, "            entry.value = value\n", "            pass\n"),),
        hunt=TROUBLED,
    ),
)
