"""Queries on `headrace.stream`: at which version each stream is. All of them but `VERSION` lock its row."""

OPEN = """
insert into headrace.stream as kept (service, stream, key, version, changed_at)
values ($1, $2, $3, $4, clock_timestamp())
on conflict (service, stream, key) do update
set version = excluded.version, changed_at = greatest(kept.changed_at, clock_timestamp()) where kept.version = 0
returning version, changed_at
"""
"""Begins a stream with so many events; no row if it has events already."""

ADVANCE = """
update headrace.stream set version = version + $4, changed_at = greatest(changed_at, clock_timestamp())
where service = $1 and stream = $2 and key = $3 and version = $5 returning version, changed_at
"""
"""Adds so many events to a stream that is at a version; no row if it is at another one."""

GROW = """
insert into headrace.stream as kept (service, stream, key, version, changed_at)
values ($1, $2, $3, $4, clock_timestamp())
on conflict (service, stream, key) do update
set version = kept.version + excluded.version, changed_at = greatest(kept.changed_at, clock_timestamp())
returning version, changed_at
"""
"""Adds so many events to a stream, wherever it is."""

LOCK = """
insert into headrace.stream as kept (service, stream, key, version, changed_at)
values ($1, $2, $3, 0, clock_timestamp())
on conflict (service, stream, key) do update set version = kept.version
returning version
"""
"""Keeps others from the stream until the transaction ends, whether it has events or not."""

VERSION = "select version from headrace.stream where service = $1 and stream = $2 and key = $3"
"""Tells at which version a stream is."""
