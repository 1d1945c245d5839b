"""Mistakes about emits and timers."""

from __future__ import annotations

from dataclasses import replace

from tests.mutants.hunts import LOST_COMMIT, WENT_BACK, dead_at
from tests.mutants.mutant import Hunt, Mutant, Patch

BATCH = "app/headrace/engine/batch.py"
TAKEOVER = "app/headrace/engine/takeover.py"
RELAY = "app/headrace/emits/relay.py"
EMITTER = "app/headrace/emits/emitter.py"
TIMER_SQL = "app/headrace/sql/timer.py"
TIMER_MODEL = "tests/simulation/store/statements/timer.py"
TIMERS = "app/headrace/engine/timers.py"
_TIMER = "topic, key, value, headers, due_at, name, cron"

PUBLISHING = (
    Mutant(
        "emits are published before the commit",
        (
            Patch(
                BATCH,
                "        self.effects, self.committing_ns = effects, time.time_ns()\n",
                "        self.effects, self.committing_ns = effects, time.time_ns()\n"
                "        if effects.emits:\n"
                "            self.holding.relay.push(self.sequence, [record for _, record in effects.emits], None)\n",
            ),
        ),
        hunt=replace(LOST_COMMIT, shares={"echoes": 0.5}),  # then its event is applied later
    ),
    Mutant(
        "unmarked emits are not published again",
        (
            Patch(
                TAKEOVER,
                "            await holding.relay.publish_unmarked()\n",
                "            holding.relay._has_caught_up = True\n",
            ),
        ),
        hunt=dead_at("after COMMIT", "emits are to be published", echoes=0.5),
    ),
    Mutant(
        "an owner that stops while it claims marks what was left",
        (Patch(RELAY, "        if not self._has_caught_up:\n            return self._through\n", ""),),
        hunt=dead_at("after COMMIT", "emits are to be published", echoes=0.5),
    ),
    Mutant(
        "emits have ids by chance",
        (
            Patch(
                EMITTER,
                "emit_id(item.identity, self.position, self._ids)\n",
                "emit_id(item.identity, self.position, self._ids)\n"
                "        import uuid\n\n        event_id = uuid.uuid4().hex\n",
            ),
        ),
        hunt=WENT_BACK,
    ),
    Mutant(
        "emits are marked that still wait",
        (
            Patch(
                RELAY,
                "        if self._pending:\n            return self._pending[0].sequence - 1\n",
                "",
            ),
        ),
        hunt=dead_at("after COMMIT", "emits are to be published", echoes=0.5),
    ),
    Mutant(
        "a timer is fired and stays",
        (
            Patch(
                TIMER_SQL,
                "    delete from headrace.timer where ctid",
                f"    select {_TIMER} from headrace.timer where ctid",
            ),
            Patch(TIMER_SQL, f"place = 1))\n    returning {_TIMER}\n)", "place = 1))\n)"),
        ),
        simulated=(
            Patch(
                TIMER_MODEL,
                '                break\n            t.put("timer", place, None)\n',
                "                break\n",
            ),
        ),
        hunt=Hunt(events=1_200, workers=1, partitions=1, shares={"reminds": 0.05}),
    ),
    Mutant(
        "a timer is taken in a transaction of its own",
        (
            Patch(
                TIMERS,
                "            fired = await take_due(connection, ",
                "            async with processor.context.connection() as other:\n"
                "                fired = await take_due(other, ",
            ),
        ),
        hunt=dead_at("timers are taken", reminds=0.05),
    ),
)
