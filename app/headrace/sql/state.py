"""Queries on `headrace.state`: a value for each key, owned by one subscription."""

READ = """
select key, version, data from headrace.state where subscription = $1 and state = $2 and key = any($3::text[])
"""
"""Reads the states of some keys."""

WRITE = """
insert into headrace.state as kept (subscription, state, key, partition, version, data)
select $1, $2, new.key, $3, new.version, new.data
from unnest($4::text[], $5::bigint[], $6::jsonb[]) as new (key, version, data)
on conflict (subscription, state, key) do update
set version = excluded.version, data = excluded.data, partition = excluded.partition
where kept.version = excluded.version - 1
"""
"""Writes states whose stored version is the one before; tells how many those were."""

READ_AS_TEXT = "select version, data::text from headrace.state where subscription = $1 and state = $2 and key = $3"
"""Reads one state as the text of its JSON."""

NAMES = """
with recursive stored as (
    (select state from headrace.state where subscription = $1 order by state limit 1)
    union all
    select (select state from headrace.state where subscription = $1 and state > stored.state order by state limit 1)
    from stored where stored.state is not null
)
select state from stored where state is not null
"""
"""Lists the states of a subscription: one look into the primary key for each, however many keys there are."""
