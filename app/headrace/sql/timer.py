"""Queries on `headrace.timer`: events that leave later. All times are those of Postgres' own clock."""

SET = """
with written as (
    insert into headrace.timer (subscription, partition, type, key, name, due_at, topic, value, headers, cron)
    select $1, $2, new.type, new.key, new.name,
           coalesce(new.at, clock_timestamp() + make_interval(secs => new.after)), new.topic, new.value, new.headers,
           new.cron
    from unnest($3::text[], $4::bytea[], $5::text[], $6::float8[], $7::timestamptz[], $8::text[], $9::bytea[],
                $10::bytea[], $11::text[]) as new (type, key, name, after, at, topic, value, headers, cron)
    on conflict (subscription, type, key, name) do update
    set partition = excluded.partition, due_at = excluded.due_at, topic = excluded.topic, value = excluded.value,
        headers = excluded.headers, set_at = excluded.set_at, cron = excluded.cron
    returning due_at
)
select extract(epoch from min(due_at) - clock_timestamp())::float8 as seconds from written
"""
"""Sets timers, in the place of those of the same type, key and name; tells in how many seconds the first is due."""

CANCEL = """
delete from headrace.timer using unnest($2::text[], $3::bytea[], $4::text[]) as gone (type, key, name)
where subscription = $1 and timer.type = gone.type and timer.key = gone.key and timer.cron is null
  and (gone.name is null or timer.name = gone.name)
"""
"""Removes timers by type, key and name, or all of a type and key; schedules stay."""

_FIRED = """
select topic, key, value, headers, name, cron, clock_timestamp() as now,
       extract(epoch from clock_timestamp() - due_at)::float8 as late_seconds
from fired order by due_at
"""
"""Tells what timers were that have been removed, the longest due first."""

TAKE_DUE = f"""
with due as (
    select owned.partition, due.* from unnest($2::int[]) as owned (partition) cross join lateral (
        select ctid as tuple, due_at, coalesce(octet_length(value), 0) + octet_length(headers) as bytes
        from headrace.timer
        where subscription = $1 and partition = owned.partition and due_at <= (select clock_timestamp())
        order by due_at limit $3 for update
    ) as due
), first as (
    select tuple, sum(bytes) over longest_due as bytes, row_number() over longest_due as place from due
    window longest_due as (partition by partition order by due_at rows unbounded preceding)
), fired as (
    delete from headrace.timer where ctid = any(array(select tuple from first where bytes <= $4 or place = 1))
    returning topic, key, value, headers, due_at, name, cron
){_FIRED}"""  # noqa: S608 - the part is that above
"""Removes timers of some partitions that are due, the longest due first, up to a number and to bytes of each."""

DUE = """
select due.* from unnest($2::int[]) as owned (partition) cross join lateral (
    select type, key, name, coalesce(octet_length(value), 0) + octet_length(headers) as bytes from headrace.timer
    where subscription = $1 and partition = owned.partition and due_at <= (select clock_timestamp())
      and key <> all($4::bytea[])
    order by due_at limit $3
) as due
"""
"""Names timers of some partitions that are due, the longest due first, but for some keys."""

LOCK_DUE = """
select key from headrace.timer join unnest($2::text[], $3::bytea[], $4::text[]) as due (type, key, name)
    using (type, key, name)
where subscription = $1 and due_at <= (select clock_timestamp()) for update of timer skip locked
"""
"""Locks timers that are due still, but for those that somebody else has locked."""

TAKE = f"""
with fired as (
    delete from headrace.timer using unnest($2::text[], $3::bytea[], $4::text[]) as due (type, key, name)
    where subscription = $1 and timer.type = due.type and timer.key = due.key and timer.name = due.name
    returning topic, timer.key, value, headers, due_at, timer.name, cron
){_FIRED}"""  # noqa: S608 - the part is that above
"""Removes these timers, the longest due first."""

SECONDS_TO_NEXT = """
select extract(epoch from min(due.at) - clock_timestamp())::float8
from unnest($2::int[]) as owned (partition) cross join lateral (
    select due_at as at from headrace.timer
    where subscription = $1 and partition = owned.partition order by due_at limit 1
) as due
"""
"""Tells in how many seconds the next timer of some partitions is due: one look into an index for each."""

COUNT_DUE = """
select count(*) from headrace.timer
where subscription = $1 and partition = any($2::int[]) and due_at <= (select clock_timestamp())
"""
"""Counts the timers of some partitions that are due and have not fired."""

COUNT_DUE_OF = (
    "select count(*) from headrace.timer where subscription = any($1::text[]) and due_at <= clock_timestamp()"
)
"""Counts the timers of some subscriptions that are due and have not fired."""

COUNT = "select count(*) from headrace.timer where subscription = $1 and partition = any($2::int[])"
"""Counts the timers of some partitions."""

MOVE = "update headrace.timer set due_at = due_at - make_interval(secs => $2) where subscription = any($1::text[])"
"""Lets timers be due so many seconds earlier, as if the time had passed; for tests."""

FOLLOW_PARTITIONS = """
update headrace.timer set partition = partition % $2
where subscription = any($1::text[]) and partition >= $2
"""
"""Gives the timers of partitions that no longer exist to owners of others."""

DROP_SCHEDULES = "delete from headrace.timer where subscription = $1 and cron is not null and name <> all($2::text[])"
"""Removes the timers of schedules that are not declared any more."""

SCHEDULED = """
select clock_timestamp() as now, array(
    select name from headrace.timer where subscription = $1 and cron is not null and name = any($2::text[])
) as names
"""
"""Tells the time, and which schedules have a timer."""

OF_PARTITION = """
select type, key, name, topic, value, headers from headrace.timer
where subscription = $1 and partition = $2 and cron is null
"""
"""Reads the timers of a partition that handlers have set."""

RESET = "delete from headrace.timer where subscription = $1 and partition = any($2::int[]) and cron is null"
"""Removes the timers of some partitions that handlers have set."""
