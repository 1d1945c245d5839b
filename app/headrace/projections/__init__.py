"""Projections: read models as typed tables, which handlers write and clients query.

```
 topic ─▶ batch ─▶ handlers of a projection ─▶ rows ─┐ one transaction
                                 claim, ledger ──────┴▶ projections.<table> ◀─ SQL, SQLAlchemy, GET /<name>?…&after=…
```
`projection.py` is what a team declares: a subscription whose handlers take the event and a `Table`, and nothing else.
`tables/` makes the table and writes it; `queries/projections.py` are the generated routes, and `queries/waiting.py`
lets a reader wait for what it has written. `rebuild/` builds the table again.

**Exactly once**: rows are part of the batch's transaction. A batch that fails takes none of them back by hand, since
none was written.

**Only rows**: a handler of a projection cannot emit, keep a state, run SQL or call a dependency. So what it does
follows from the events alone, and can be done again from the beginning, without an effect.

Rejected: a view over states (no indexes, no types), tables in the schema `public` (a team's migrations live there), a
cache in front of the table (readers would have to know how old it is).
"""
