"""Mistakes about emits and timers."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, Patch

BATCH = "app/headrace/engine/batch.py"
TENURE = "app/headrace/engine/tenure.py"
RELAY = "app/headrace/emits/relay.py"
EMITTER = "app/headrace/emits/emitter.py"
TIMER_MODEL = "tests/simulation/store/statements/timer.py"
TIMERS = "app/headrace/engine/timers.py"

PUBLISHING = (
    Mutant(
        "emits are published before the commit",
        (
            Patch(
                BATCH,
                "        batch.effects, batch.committing_ns = effects, time.time_ns()\n",
                "        batch.effects, batch.committing_ns = effects, time.time_ns()\n"
                "        if effects.emits:\n"
                "            relay.push(batch.sequence, [record for _, record in effects.emits], None)\n",
            ),
        ),
    ),
    Mutant(
        "unmarked emits are not published again",
        (Patch(TENURE, "            await holding.relay.publish_unmarked()\n", ""),),
    ),
    Mutant(
        "emits have ids by chance",
        (
            Patch(
                EMITTER,
                "key=self._key, digest_size=16).hexdigest()\n",
                "key=self._key, digest_size=16).hexdigest()\n"
                "        import uuid\n\n        event_id = uuid.uuid4().hex\n",
            ),
        ),
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
    ),
    Mutant(
        "a timer is fired and stays",
        (
            Patch(
                TIMER_MODEL,
                '                continue\n            t.put("timer", place, None)\n',
                "                continue\n",
            ),
        ),
    ),
    Mutant(
        "a timer is taken in a transaction of its own",
        (
            Patch(
                TIMERS,
                "            fired = await take_due(connection, group, [processor.partition], self._portions.most)\n",
                "            async with processor.context.connection() as other:\n"
                "                fired = await take_due(other, group, [processor.partition], self._portions.most)\n",
            ),
        ),
    ),
)
