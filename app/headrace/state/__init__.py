"""Keyed state: a typed value per key, owned by one subscription, kept in Postgres.

The owner of a partition keeps the states that it has seen in memory (`cache.py`), since its claim makes it the only
writer. That holds for one partition: a key that another partitioner put on a second partition has two owners. So each
row has a version that every write compares. If another writer changed the row, the batch rolls back, reads the row and
runs again: no update is lost, and a key with one owner pays nothing for it.

A state is the same after a restart as before (`codec.py`): every write is read back and compared before it is sent,
which costs a microsecond for a small state, and a stored member without a field is refused instead of dropped.

```
store.read (event loop: I/O) -> StateCache.fill (any thread: decoding) -> handlers -> StateType.encode -> store.write
```

A state may expire, and its class may have versions (`keeping.py`). Each row has its own end, by Postgres' clock; the
owner's copy ends no later, since it counts from before the row was asked for, or written. The row stays for a while
after its end, so that a batch in flight finds the version that it compares (`expiry.py`). What an older version of the
class has written is brought up by upcasters (`codec.py`), when it is read or all at once (`migrate.py`).

Rejected: a row lock per key (a round trip per key), the partition as part of the key (a moved key would start from
nothing), `bytea` (a third faster to write, but closed to SQL), a serializer with `warnings="error"` in place of reading
back (as slow, and it sees neither constraints nor lost subclasses).
"""
