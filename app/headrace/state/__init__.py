"""Keyed state: a typed value per key, owned by one subscription, kept in Postgres.

The owner of a partition keeps the states it has seen in memory (`cache.py`), since its claim makes it the only writer.
"Only writer" holds per partition: a key that another partitioner put on a second partition has two owners. So each
row carries a version that every write compares: a second writer's change is noticed, the batch rolls back, reads the
row again and runs again; no update is lost, and a key in one place costs nothing for it.

Rejected: a row lock per key (a round trip per key), state that carries its partition in the key (a moved key would
start from nothing), `bytea` (a third faster to write, but closed to SQL).
"""
