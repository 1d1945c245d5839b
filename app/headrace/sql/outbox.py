"""Queries on `headrace.outbox`: events that routes have written in their own transactions, and who publishes them."""

INSERT = """
insert into headrace.outbox (service, bucket, id, topic, key, value, headers)
select $1, new.bucket, gen_random_uuid(), new.topic, new.key, new.value, new.headers
from unnest($2::smallint[], $3::text[], $4::bytea[], $5::bytea[], $6::bytea[]) with ordinality
    as new (bucket, topic, key, value, headers, place)
order by new.bucket, new.place
"""
"""Writes events; in the order of their buckets, so that two statements never wait for each other in a circle."""

INSERT_KEPT = """
insert into headrace.outbox (service, bucket, id, topic, key, value, headers)
select $1, new.bucket, gen_random_uuid(), new.topic, new.key, new.value, new.headers
from unnest($2::smallint[], $3::text[], $4::bytea[], $5::bytea[], $6::bytea[], $7::text[], $8::bigint[],
            $9::timestamptz[]) with ordinality
    as new (bucket, topic, key, value, headers, stream, version, appended_at, place)
where new.stream is null or exists (
    select from headrace.stream_event as stored
    where stored.service = $1 and stored.stream = new.stream and stored.key = convert_from(new.key, 'UTF8')
      and stored.version = new.version and stored.appended_at = new.appended_at
)
order by new.bucket, new.place
"""
"""The same, where some were appended to streams: without those that a rolled back savepoint has taken out of them."""

TRY_BUCKETS = """
select bucket from unnest($2::int[]) as wanted (bucket)
where pg_try_advisory_xact_lock(hashtext('headrace.outbox.key/' || $1), bucket)
"""
"""Locks buckets as the trigger of `headrace.outbox` does, but waits for none; tells which of them it has."""

WAIT_SHORTLY = "set local lock_timeout = '50ms'"
"""Lets a statement wait for a moment only."""

LOCK_BUCKET = "select pg_advisory_xact_lock(hashtext('headrace.outbox.key/' || $1), $2)"
"""Locks a bucket as the trigger of `headrace.outbox` does, and waits for it."""

WAIT_AS_BEFORE = "set local lock_timeout to default"
"""Lets statements wait for locks as long as the session says."""

READ = """
with first as (
    select waiting.*, sum(coalesce(octet_length(value), 0) + octet_length(headers))
               over (partition by waiting.slot order by waiting.number) as bytes,
           row_number() over (partition by waiting.slot order by waiting.number) as place
    from unnest($2::smallint[]) as wanted (slot)
    cross join lateral (
        select slot, number, topic, key, value, headers from headrace.outbox
        where service = $1 and slot = wanted.slot order by number limit $3
    ) as waiting
)
select slot, number, topic, key, value, headers from first where bytes <= $4 or place = 1 order by slot, number
"""
"""Reads the first events of each slot, in order: every pass begins at the front."""

LOOK_BEHIND = """
select behind.* from unnest($2::smallint[], $3::bigint[]) as wanted (slot, after)
cross join lateral (
    select slot, number, topic, key, coalesce(octet_length(value), 0) + octet_length(headers) as bytes
    from headrace.outbox
    where service = $1 and slot = wanted.slot and number > wanted.after order by number limit $4
) as behind
order by slot, number
"""
"""Tells where events of each slot go, without their data, in order, behind a number of the same pass."""

READ_THESE = """
select slot, number, topic, key, value, headers
from headrace.outbox join unnest($2::smallint[], $3::bigint[]) as wanted (slot, number) using (slot, number)
where service = $1 order by slot, number
"""
"""Reads some events, in order."""

DELETE = """
delete from headrace.outbox using unnest($2::smallint[], $3::bigint[]) as gone (slot, number)
where service = $1 and outbox.slot = gone.slot and outbox.number = gone.number
"""
"""Removes events that the log has."""

COUNT = "select count(*) from headrace.outbox where service = $1"
"""Counts the events of a service that wait."""

PENDING = """
select count(*) as events, coalesce(extract(epoch from clock_timestamp() - min(queued_at)), 0)::float8 as oldest_seconds
from headrace.outbox where service = $1
"""
"""Counts the events of a service that wait, and tells the age of the oldest."""

JOIN = "select pg_advisory_lock_shared(hashtext('headrace.outbox/' || $1), -1)"
"""Makes the session a member of the service's relays, for as long as it lives."""

MEMBERS = """
select count(*) from pg_locks
where locktype = 'advisory' and objsubid = 2 and granted
  and database = (select oid from pg_database where datname = current_database())
  and classid = (hashtext('headrace.outbox/' || $1)::bigint & 4294967295)::oid and objid = 4294967295::oid
"""
"""Counts the service's relays."""

TAKE = """
select slot from unnest($2::smallint[]) as wanted (slot)
where pg_try_advisory_lock(hashtext('headrace.outbox/' || $1), slot) limit $3
"""
"""Takes slots that no other session holds, at most a number of them; they come free when the session ends."""

RELEASE = """
select pg_advisory_unlock(hashtext('headrace.outbox/' || $1), slot) from unnest($2::smallint[]) as given (slot)
"""
"""Lets slots go."""

NOTIFY = "select pg_notify('headrace_outbox', $1)"
"""Tells the relays of other processes which slots have events."""

LAST_NUMBER = "select coalesce(max(number), 0) from headrace.outbox where service = $1"
"""Tells the highest number of a service's events that wait; 0 if none does."""

WAITS_UP_TO = "select exists (select from headrace.outbox where service = $1 and number <= $2)"
"""Tells whether an event up to a number waits."""
