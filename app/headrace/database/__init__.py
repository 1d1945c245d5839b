"""Postgres: the embedded one or a server's, how it is connected to, and its schema.

```
opening.py         migrate, connect, compare the schema: for a start and for every command
embedded.py        a real PostgreSQL that lives and dies with the platform
  early.py           its first start, which begins before the application is imported
  new_cluster.py     its folder, which appears whole or not at all
  server_process.py  its processes: as whom they run, which are left over
  launch.py          becomes a program that dies with its parent
pool.py            connections that behave the same on every server
  session.py         one of them, which knows PostgreSQL's own types
scratch.py         who lends databases for tests
migrate.py         the schema `headrace`, by files in migrations/
survival.py        restarts an embedded PostgreSQL that died alone
failures.py        what an error means for a batch
```

What survives: everything that was committed, whoever is killed (`fsync` and `synchronous_commit` are on, here and for
every session). What is assumed: a disk that keeps what it says it has flushed, and a data folder on one machine.

Why a child process and not a daemon: nobody has to find, stop or upgrade it, and two platforms never share it by
accident. The kernel ends it with the platform (PR_SET_PDEATHSIG), and a lock on the folder keeps a second platform out.
If a server is left over nevertheless, it is found by the folder that it works in, never by a pid in a file.

Why session settings and not `alter role`: a role's settings belong to its owner, and Headrace leaves them alone. A
pooler that does not keep session settings (PgBouncer in transaction mode) is refused. The search path alone is the
role's own, so that handlers, psql and Alembic find the same tables; the embedded server's is `public`.
"""
