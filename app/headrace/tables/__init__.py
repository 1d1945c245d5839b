"""Tables that are declared by a class: the rows of projections, with real columns, in the schema `projections`.

```
class ─▶ columns.py ─▶ table.py ─▶ schema.py: create it, or add what is new
                          ▲
handler: rows.put(...) ─▶ writes.py ─▶ a statement for each kind of change, in the batch's transaction
```
What a handler does to rows is a list of changes. Those of one key are folded as far as their order allows it, so that a
batch takes as many statements as there are kinds of changes, however many events it has. Rows are written in the order
of their keys.

Rejected: the schema `public` (a team's Alembic would want to drop what it does not know), rows that are read before
they are written (a round trip for each; `add` counts without one).
"""
