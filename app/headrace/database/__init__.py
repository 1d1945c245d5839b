"""Postgres: the embedded one or a server's, how it is connected to, and its schema.

```
embedded.py        a real PostgreSQL that lives and dies with the platform
  server_process.py  its processes: as whom they run, which are left over
  launch.py          becomes a program that dies with its parent
pool.py            connections that behave the same on every server
migrate.py         the schema `headrace`, by files in migrations/
failures.py        what an error means for a batch
```

What survives: everything that was committed, whoever is killed (`fsync` and `synchronous_commit` are on, here and for
every session). What is assumed: a disk that keeps what it says it has flushed, and a data folder on one machine.

Why a child process and not a daemon: nobody has to find, stop or upgrade it, and two platforms never share it by
accident. The kernel ends it with the platform (PR_SET_PDEATHSIG), a lock on the folder keeps a second platform out, and
what is left over after all is found by the folder that it works in, never by a pid that a file claims.

Why session settings and not `alter role`: a role's defaults are its owner's and leak into batches. A pooler that does
not keep them (PgBouncer in transaction mode) is refused.
"""
