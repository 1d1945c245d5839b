"""Queries on `headrace.snapshot`: the latest state of an aggregate, so that not all of its events are read again."""

WRITE = """
insert into headrace.snapshot as kept (service, stream, key, version, revision, state)
values ($1, $2, $3, $4, $5, $6::text::jsonb)
on conflict (service, stream, key) do update
set version = excluded.version, revision = excluded.revision, state = excluded.state
"""
"""Keeps a snapshot in place of the one before; the stream's row is locked."""

READ = """
select version, state::text as state from headrace.snapshot
where service = $1 and stream = $2 and key = $3 and revision = $4 and ($5::bigint is null or version <= $5)
"""
"""Reads the snapshot of a stream, if the same code made it and it is not newer than a version."""
