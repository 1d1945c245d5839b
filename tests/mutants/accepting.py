"""Mistakes about taking events in over HTTP, which the simulation has no part of: the crash machine hunts them."""

from __future__ import annotations

from tests.mutants.mutant import Hunt, Mutant, Patch

PARSING = "app/headrace/ingest/parsing.py"
SENDING = "app/headrace/publishing/sending.py"

ACCEPTING = (
    Mutant(
        "202 is answered before the log has the events",
        (
            Patch(
                SENDING,
                "        if not await has_ended(publishing, timeout):\n",
                "        if not await has_ended(publishing, 0):\n            return []\n"
                "        if not publishing.done():\n",
            ),
        ),
        hunt=Hunt(("lose Kafka", "kill"), events=1_500, faults=3),
    ),
    Mutant(
        "an Idempotency-Key is not the id of the event",
        (Patch(PARSING, "    return event_id\n", "    return str(uuid.uuid4())\n"),),
        hunt=Hunt(("kill",), events=1_500, faults=2),
    ),
)
