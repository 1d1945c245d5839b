"""Queries on `headrace.effect`: calls to the outside that wait, run or are tried again."""

START = """
insert into headrace.effect (subscription, partition, identity, number, key, topic, "offset", "timestamp", record_key,
                             value, headers)
select $1, $2, new.*
from unnest($3::bytea[], $4::bigint[], $5::bytea[], $6::text[], $7::bigint[], $8::bigint[], $9::bytea[], $10::bytea[],
            $11::bytea[]) as new
on conflict (subscription, identity) do nothing
"""
"""Starts the effects of applied events; that of an event which has one already is not started again."""

_DUE = "extract(epoch from case when due_at <= clock_timestamp() then '-infinity' else due_at end)::float8 as due"
"""What is due by the clock of Postgres is due by every other."""
_COLUMNS = f'identity, number, topic, "offset", "timestamp", record_key, value, headers, attempts, error, {_DUE}'
"""What is read of an effect that its owner calls."""

LOAD = f"""
with held as (
    select distinct on (key) key, number, identity from headrace.effect
    where subscription = $1 and partition = $2 and due_at = 'infinity' order by key, number, identity
)
select {_COLUMNS},
       (select max(number) from headrace.effect where subscription = $1 and partition = $2) as last_number
from headrace.effect
where subscription = $1 and partition = $2 and not exists (
    select from held
    where held.key = effect.key and (effect.number, effect.identity) > (held.number, held.identity)
)
order by number, identity
"""  # noqa: S608 - the part is that above
"""Reads the effects of a partition, in order, without those that are behind a held one of their key."""

LOAD_BEHIND = f"""
select {_COLUMNS}
from headrace.effect
where subscription = $1 and partition = $2 and key = $3 and (number, identity) > ($4::bigint, $5::bytea)
order by number, identity limit $6
"""  # noqa: S608 - the part is that above
"""Reads the next effects of a key, in order."""

COUNT_DEATH = """
with front as (
    select distinct on (key) identity, due_at from headrace.effect
    where subscription = $1 and partition = $2 order by key, number
)
update headrace.effect set attempts = attempts + 1
from front
where effect.subscription = $1 and effect.identity = front.identity and front.due_at <= clock_timestamp()
  and not exists (
      select from headrace.subscription where subscription = $1 and (paused or rewind_began_at is not null)
  )
  and not exists (select from headrace.claim where subscription = $1 and partition = $2 and owner = $3)
"""
"""Counts an attempt of every effect that a dead owner may have been running: of each key the first, if it is due.

A paused subscription begins no call, and those that it had begun before have long ended. A death is counted with the
first claim that the next owner takes of the partition number, since a subscription has one for each of its topics.
"""

END = "delete from headrace.effect where subscription = $1 and identity = any($2::bytea[])"
"""Removes effects that are done, or given up on."""

WAIT = """
update headrace.effect set attempts = failed.attempts, due_at = to_timestamp(failed.due), error = failed.error
from unnest($2::bytea[], $3::int[], $4::float8[], $5::text[]) as failed (identity, attempts, due, error)
where effect.subscription = $1 and effect.identity = failed.identity
"""
"""Lets failed effects wait for their next attempt."""

DUE_TIMES = f"""
select identity, {_DUE} from headrace.effect
where subscription = $1 and partition = $2 and due_at > '-infinity'
"""  # noqa: S608 - the part is that above
"""Reads when failed effects are due, as `LOAD` does."""

LIST = """
select subscription, partition, key, topic, "offset", "timestamp", record_key, value, headers, attempts, error,
       started_at, case when isfinite(due_at) then due_at end as due_at, due_at = 'infinity' as held
from headrace.effect
where $1 in (subscription, substr(subscription, strpos(subscription, '.') + 1)) and ($2::bytea is null or key = $2)
  and (not $3 or due_at > '-infinity')
order by subscription, partition, number limit $4
"""
"""Lists the effects of a subscription, in order."""

RETRY_NOW = """
with due as (
    update headrace.effect set due_at = now()
    where $1 in (subscription, substr(subscription, strpos(subscription, '.') + 1)) and ($2::bytea is null or key = $2)
      and due_at > now()
    returning subscription
), told as (
    insert into headrace.subscription (subscription, retry_requested_at)
    select subscription, clock_timestamp() from due group by subscription
    on conflict (subscription) do update set retry_requested_at = excluded.retry_requested_at
)
select count(*) from due
"""
"""Makes failed effects due now, and tells their owners that due times have changed."""

COUNT_OF_TOPIC = """
select subscription, partition, count(*) as events from headrace.effect
where topic = $1 and subscription = any($2::text[]) group by subscription, partition
"""
"""Counts the effects of a topic's events, by subscription and partition."""

FOLLOW_PARTITIONS = """
update headrace.effect set partition = partition % $2 where subscription = any($1::text[]) and partition >= $2
"""
"""Gives the effects of partitions that no longer exist to owners of others."""

MOVE = """
update headrace.effect set due_at = due_at - make_interval(secs => $2)
where subscription = any($1::text[]) and isfinite(due_at)
"""
"""Lets failed effects be due so many seconds earlier, as if the time had passed; for tests."""
