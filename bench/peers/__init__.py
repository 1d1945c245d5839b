"""What the benchmark compares, each as its own documentation has a user write it: one short file, one process.

Every one reads the same wallet events and keeps the same four numbers per customer in Postgres. The environment names
`KAFKA` (host:port), `DATABASE` (postgresql://...), `TOPIC` and `GROUP`; `schema.sql` makes the tables.
"""
