"""Queries on `headrace.stream_event`: the events of the event store."""

INSERT = """
insert into headrace.stream_event
    (service, stream, key, version, type, schema_version, data, appended_at, correlation_id, causation_id)
select $1, $2, $3, new.version, new.type, new.schema_version, new.data::jsonb, $4, $5, $6
from unnest($7::bigint[], $8::text[], $9::integer[], $10::text[]) as new (version, type, schema_version, data)
"""
"""Writes the events of one append; the stream's row is locked."""

READ = """
select version, type, schema_version, data::text as data, appended_at, correlation_id, causation_id
from headrace.stream_event
where service = $1 and stream = $2 and key = $3 and version > $4
  and ($5::bigint is null or version <= $5) and ($6::timestamptz is null or appended_at <= $6)
order by version limit $7
"""
"""Reads the events of a stream behind a version, up to a version, a time and a number."""

COUNT = "select count(*) from headrace.stream_event where service = $1 and type = any($2::text[])"
"""Counts the events of some types."""

PAGE = """
select stream, key, version, type, schema_version, data::text as data, appended_at, correlation_id, causation_id
from headrace.stream_event
where service = $1 and type = any($2::text[]) and (stream, key, version) > ($3, $4, $5)
order by stream, key, version limit $6
"""
"""Reads the events of some types, stream by stream, behind one of them."""
