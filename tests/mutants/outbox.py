"""Mistakes about the outbox of routes, which the simulation has no part of: the crash machine hunts them."""

from __future__ import annotations

from tests.mutants.hunts import dead_at
from tests.mutants.mutant import Hunt, Mutant, Patch

RELAY = "app/headrace/outbox/relay.py"
TRANSACTION = "app/headrace/outbox/transaction.py"
OUTBOX_SQL = "app/headrace/sql/outbox.py"

OUTBOX = (
    Mutant(
        "events of a route are removed before the log has them",
        (
            Patch(
                RELAY,
                "            await self._publish(rows)\n            await self._delete(rows)\n",
                "            await self._delete(rows)\n            await self._publish(rows)\n",
            ),
        ),
        hunt=dead_at("a route's events are to be published"),
    ),
    Mutant(
        "events of a route are written behind its commit",
        (
            Patch(TRANSACTION, "            slots = await write_kept(connection, service, tx.rows, tx.appends)\n", ""),
            Patch(
                TRANSACTION,
                "        await transaction.commit()\n    wake",
                "        await transaction.commit()\n"
                "        slots = await write_kept(connection, service, tx.rows, tx.appends)\n"
                "    wake",
            ),
        ),
        hunt=dead_at("a route's events are to be written"),
    ),
    Mutant(
        "events of a route leave in no order",
        (
            Patch(
                OUTBOX_SQL,
                "from first where bytes <= $4 or place = 1 order by slot, number\n",
                "from first where bytes <= $4 or place = 1 order by slot, number desc\n",
            ),
        ),
        hunt=Hunt(("lose Kafka",), events=1_500, faults=2),
    ),
)
