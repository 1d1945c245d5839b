"""Queries on `headrace.state`: a value for each key, owned by one subscription."""

READ = """
select key, version, data, class_version, extract(epoch from expires_at - clock_timestamp())::float8 as left_seconds
from headrace.state where subscription = $1 and state = $2 and key = any($3::text[])
"""
"""Reads the states of some keys, with the time that each has left (null: any)."""

WRITE = """
insert into headrace.state as kept (subscription, state, key, partition, version, data, expires_at, class_version)
select $1, $2, new.key, $3, new.version, new.data::jsonb, clock_timestamp() + $8::interval, $9
from unnest(
    (string_to_array($4, $7))[2:], string_to_array($5, ',')::bigint[], (string_to_array($6, $7))[2:]
) as new (key, version, data)
on conflict (subscription, state, key) do update
set version = excluded.version, data = excluded.data, partition = excluded.partition,
    expires_at = excluded.expires_at, class_version = excluded.class_version
where kept.version = excluded.version - 1
"""
"""Writes states whose stored version is the one before, for so long; tells how many those were.

Keys and data are texts with a separator before each: one of length 0 stands for an empty key, and not for none.
"""

READ_AS_TEXT = """
select version, data::text, class_version from headrace.state
where subscription = $1 and state = $2 and key = $3 and (expires_at is null or expires_at > clock_timestamp())
"""
"""Reads one state as the text of its JSON."""

EXPIRE = """
with gone as (
    delete from headrace.state where ctid = any(array(
        select ctid from headrace.state where expires_at < clock_timestamp() - $1::interval
        order by expires_at limit $2 for update skip locked
    ))
    returning subscription, state
)
select subscription, state, count(*) as rows from gone group by subscription, state
"""
"""Removes some states whose time has been over for a while, the first ones first, and counts them."""

COUNT_OLDER = "select count(*) from headrace.state where subscription = $1 and state = $2 and class_version < $3"
"""Counts the states that an older version of their class has written."""

OLDER = """
select key, version, data, class_version from headrace.state
where subscription = $1 and state = $2 and class_version < $3 and ($4::text is null or key > $4)
order by key limit $5
"""
"""Lists states that an older version of their class has written, behind a key; null: from the first on."""

RAISE = """
update headrace.state as kept set data = new.data, version = kept.version + 1, class_version = $6
from unnest($3::text[], $4::bigint[], $5::jsonb[]) as new (key, version, data)
where kept.subscription = $1 and kept.state = $2 and kept.key = new.key and kept.version = new.version
"""
"""Writes states as a newer version of their class has them, if they are as they were read."""

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

COUNT = """
select subscription, state, count(*) as keys, pg_size_pretty(sum(pg_column_size(data))) as size from headrace.state
where ($1::text is null or subscription = $1) and (expires_at is null or expires_at > clock_timestamp())
group by subscription, state order by subscription, state
"""
"""Counts the keys of each state."""

LIST = """
select key, partition, version, data::text as data, class_version from headrace.state
where subscription = $1 and state = $2 and ($3::text is null or key > $3)
    and (expires_at is null or expires_at > clock_timestamp())
order by key limit $4
"""
"""Lists the states of a class, from a key on."""

READ_FOR_UPDATE = """
select partition, version, data::text as data from headrace.state
where subscription = $1 and state = $2 and key = $3 for update
"""
"""Reads one state, and lets no batch write it meanwhile."""

PUT = """
insert into headrace.state as kept (subscription, state, key, partition, version, data, expires_at, class_version)
values ($1, $2, $3, $4, 1, $5::text::jsonb, clock_timestamp() + $6::interval, $7)
on conflict (subscription, state, key) do update set version = kept.version + 1, data = excluded.data,
    expires_at = excluded.expires_at, class_version = excluded.class_version
returning version
"""
"""Writes a state by hand, whatever it was."""

DELETE = "delete from headrace.state where subscription = $1 and state = $2 and key = $3"
"""Removes a state by hand."""

RESET = "delete from headrace.state where subscription = $1 and partition = any($2::int[])"
"""Removes the states of some partitions: their keys begin anew."""

FORGET = "delete from headrace.state where subscription = $1 and state = $2 and key = any($3::text[])"
"""Removes the states of some keys, which had none at the place that a person goes back to."""

REMAKE = """
insert into headrace.state as kept (subscription, state, key, partition, version, data, class_version)
select $1, $2, new.key, $3, 1, new.data, $6 from unnest($4::text[], $5::jsonb[]) as new (key, data)
on conflict (subscription, state, key) do update
set version = kept.version + 1, data = excluded.data, class_version = excluded.class_version
"""
"""Writes states as they were at a place that a person goes back to, whatever they are."""

ELSEWHERE = """
select key, partition from headrace.state
where subscription = $1 and key = any($2::text[]) and partition <> $3 order by key limit 1
"""
"""Finds one of some keys that was last applied on another partition."""

COUNT_OF_PARTITIONS = "select count(*) from headrace.state where subscription = $1 and partition = any($2::int[])"
"""Counts the states of some partitions."""
