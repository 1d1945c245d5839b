"""A model of Postgres: Headrace's tables, its queries, transactions under READ COMMITTED, row locks, sessions that end.

```
client.py: pool, connections ──latency──▶ server.py: sessions, one command after the other
                                              │
                              transaction.py: own writes, locks ─▶ tables.py: what is committed
                                              │
                                          statements/: what each query of `headrace.sql` does
```
A query is recognised by its text in `headrace.sql`; one without a model is an error that names it.
"""
