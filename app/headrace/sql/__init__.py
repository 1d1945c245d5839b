"""All SQL that Headrace runs on its own tables, one module for each table: `sql.claim.ADVANCE`.

A change of a column opens one module here. The tables themselves are made in `database/migrations`.

* A module has the name of its table, without the schema. `lane` has the table `parked` as well, `log` all tables of the
  embedded log, `batch` those that several batches write at once, `schema` the table of applied migrations, `audit` what
  compares tables with each other, and `explain` what looks for one event.
* A module holds constants and nothing else, each with a docstring that says what the query is for.
* A query that names two tables is in the module of the table whose rows it returns or changes.
* Whoever runs a query writes `from headrace import sql`, and passes arguments for `$1`, `$2`. Only what Postgres takes
  no argument for is filled in by `format`: the table and the bounds of a day of the ledger.
"""

from headrace.sql import (
    audit,
    batch,
    claim,
    claim_move,
    dead_letter,
    effect,
    explain,
    installation,
    lane,
    ledger,
    log,
    outage,
    outbox,
    process,
    projection,
    saga,
    schema,
    snapshot,
    state,
    state_change,
    step,
    stream,
    stream_event,
    subscription,
    timer,
    topic,
)

__all__ = [
    "audit",
    "batch",
    "claim",
    "claim_move",
    "dead_letter",
    "effect",
    "explain",
    "installation",
    "lane",
    "ledger",
    "log",
    "outage",
    "outbox",
    "process",
    "projection",
    "saga",
    "schema",
    "snapshot",
    "state",
    "state_change",
    "step",
    "stream",
    "stream_event",
    "subscription",
    "timer",
    "topic",
]
