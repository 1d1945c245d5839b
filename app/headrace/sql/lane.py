"""Queries on `headrace.lane` and `headrace.parked`: the keys that wait for a retry, and their events."""

LOAD = """
select lane.key, lane.attempts, lane.is_running, extract(epoch from lane.due_at)::float8 as due, lane.error,
       lane.error_type, lane.handler,
       extract(epoch from lane.parked_at)::float8 as since, count(*) as events,
       min(parked.number) as head, max(parked.number) as number, max(parked.number & 524287) as arrival
from headrace.lane join headrace.parked using (subscription, partition, key)
where subscription = $1 and partition = $2
group by lane.key, lane.attempts, lane.is_running, lane.due_at, lane.error, lane.error_type, lane.handler,
         lane.parked_at
"""
"""Reads which keys are parked, with the first and the last number of their events.

`arrival` is the last order of arrival that numbers of a subscription in sequence end with (`order/numbers.py`).
"""

DUE_TIMES = """
select key, extract(epoch from due_at)::float8 as due from headrace.lane where subscription = $1 and partition = $2
"""
"""Reads when lanes are due."""

OPEN = """
insert into headrace.lane (subscription, partition, key, attempts, due_at, error, error_type, handler)
select $1, $2, new.key, new.attempts, to_timestamp(new.due), new.error, new.error_type, new.handler
from unnest($3::bytea[], $4::int[], $5::float8[], $6::text[], $7::text[], $8::text[])
    as new (key, attempts, due, error, error_type, handler)
on conflict (subscription, partition, key) do update
set attempts = excluded.attempts, error = excluded.error, error_type = excluded.error_type, handler = excluded.handler,
    is_running = false,
    due_at = case when lane.error_type = 'SequenceGapError' and (lane.error_type, lane.error) =
                       (excluded.error_type, excluded.error)
                  then least(lane.due_at, excluded.due_at) else excluded.due_at end
"""
"""Writes lanes as they are from now on.

One that waits for the same gap as before waits no longer than it would have: an operator may have let it go on, which
its owner does not know yet.
"""

COUNT_RUN = """
update headrace.lane set attempts = counted.attempts, is_running = true
from unnest($3::bytea[], $4::int[]) as counted (key, attempts)
where subscription = $1 and partition = $2 and lane.key = counted.key
"""
"""Counts a run before it starts."""

MOVE = "update headrace.lane set due_at = due_at - make_interval(secs => $2) where subscription = any($1::text[])"
"""Lets retries be due so many seconds earlier, as if the time had passed; for tests."""

NOTE_DEATH = """
update headrace.lane set is_running = false, error = $3 where subscription = $1 and partition = $2 and is_running
"""
"""Notes that the runs which had begun ended with their owner: they were counted, and the next ones are counted anew."""

CLOSE = "delete from headrace.lane where subscription = $1 and partition = $2 and key = any($3::bytea[])"
"""Removes lanes that are empty."""

LIST = """
select lane.subscription, lane.partition, lane.key, lane.attempts, nullif(lane.due_at, 'infinity') as due_at,
       lane.parked_at, lane.error, lane.error_type, lane.handler,
       waiting.events, head.topic, head."offset", head.source, head.event_id, head.type, head.reason
from headrace.lane
cross join lateral (
    select count(*) as events from headrace.parked
    where subscription = lane.subscription and partition = lane.partition and key = lane.key
) as waiting
left join lateral (
    select topic, "offset", source, event_id, type, reason from headrace.parked
    where subscription = lane.subscription and partition = lane.partition and key = lane.key order by number limit 1
) as head on true
where ($1::text is null or lane.subscription = $1)
  and ($2::text is null or $2 in (lane.subscription, substr(lane.subscription, strpos(lane.subscription, '.') + 1)))
  and ($3::bytea is null or lane.key = $3) and ($4::text is null or lane.handler = $4)
  and ($5::text is null or lane.error_type = $5) and ($6::boolean is null or (lane.due_at = 'infinity') = $6)
  and ($7::text is null or (lane.subscription, lane.partition, lane.key) > ($7, $8::int, $9::bytea))
order by lane.subscription, lane.partition, lane.key limit $10
"""
"""Lists lanes with their first event, from a place on."""

RETRY_NOW = """
with asked as (
    select subscription, partition, key from headrace.lane
    where ($1::text is null or subscription = $1)
      and ($2::text is null or $2 in (subscription, substr(subscription, strpos(subscription, '.') + 1)))
      and ($3::bytea is null or key = $3) and ($4::text is null or handler = $4)
      and ($5::text is null or error_type = $5) and ($6::boolean is null or (due_at = 'infinity') = $6)
    order by subscription, partition, key for update
), due as (
    update headrace.lane set due_at = now() from asked
    where lane.subscription = asked.subscription and lane.partition = asked.partition and lane.key = asked.key
    returning lane.subscription
), told as (
    insert into headrace.subscription (subscription, retry_requested_at)
    select subscription, clock_timestamp() from due group by subscription
    on conflict (subscription) do update set retry_requested_at = excluded.retry_requested_at
)
select count(*) from due
"""
"""Makes lanes due now, and tells their owners that due times have changed."""

PARK = """
insert into headrace.parked (subscription, partition, key, number, topic, "offset", "timestamp", record_key, value,
                             headers, source, event_id, type, reason)
select $1, $2, new.*
from unnest($3::bytea[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::bytea[], $9::bytea[], $10::bytea[],
            $11::text[], $12::text[], $13::text[], $14::text[]) as new
"""
"""Appends events to their lanes."""

FIRST_EVENTS = """
with head as (
    select lane.key as lane_key, parked.*,
           sum(coalesce(octet_length(value), 0) + octet_length(headers)) over (order by lane.place, parked.number)
               as bytes,
           row_number() over (order by lane.place, parked.number) as place
    from unnest($3::bytea[], $4::int[]) with ordinality as lane (key, most, place)
    cross join lateral (
        select * from headrace.parked
        where subscription = $1 and partition = $2 and key = lane.key order by number limit lane.most
    ) as parked
)
select lane_key as key, number, topic, "offset", "timestamp", record_key, value, headers
from head where bytes <= $5 or place = 1 order by place
"""
"""Reads the first events of each lane, in the order of the lanes given, so many of each and up to a number of bytes."""

UNPARK = """
delete from headrace.parked using unnest($3::bytea[], $4::bigint[]) as gone (key, number)
where subscription = $1 and partition = $2 and parked.key = gone.key and parked.number = gone.number
"""
"""Removes events that leave their lane."""

PARKED_OF_TOPIC = """
select subscription, partition, count(*) as events from headrace.parked
 where topic = $1 and subscription = any($2::text[]) group by subscription, partition
"""
"""Counts the events of a topic that are in lanes, by subscription and partition."""

PARKED_BY_PARTITION = """
select subscription, topic, partition, count(distinct key) as keys, count(*) as events from headrace.parked
where subscription = any($1::text[]) group by subscription, topic, partition
"""
"""Counts the keys and events in the lanes of some subscriptions, by topic and partition."""

GAPS = """
select subscription, count(*) as keys from headrace.lane
where subscription = any($1::text[]) and error_type = $2 group by subscription
"""
"""Counts the keys of some subscriptions whose first event failed with a class of error."""

PARKED_KEYS = """
select subscription, count(distinct (partition, key)) as keys, min(parked_at) as since from headrace.parked
group by subscription order by subscription
"""
"""Counts the keys of each subscription that wait for a retry, and tells since when."""

WAITING = "select count(*) from headrace.parked where subscription = $1"
"""Counts the events that wait in lanes."""

PARKED_PLACES = """
select topic, partition, "offset" from headrace.parked where subscription = $1 order by topic, partition, "offset"
"""
"""Tells which records wait in lanes."""

GIVE_UP_LOST = """
with claimed as (
    select distinct subscription, partition from headrace.claim where subscription = any($1::text[])
), gone as (
    delete from headrace.parked
    where subscription = any($1::text[]) and partition >= $2 and (subscription, partition) not in (table claimed)
    returning *
), closed as (
    delete from headrace.lane
    where subscription = any($1::text[]) and partition >= $2 and (subscription, partition) not in (table claimed)
    returning subscription, partition, key, attempts, error, error_type, handler
)
insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", key, record_key, value,
                                  headers, source, event_id, type, reason, error, error_type, handler, attempts)
select gone.subscription, gone.partition, gone.topic, gone."offset", gone."timestamp", gone.key, gone.record_key,
       gone.value, gone.headers, gone.source, gone.event_id, gone.type, 'gave_up',
       'it waited in a lane of partition ' || gone.partition || ', which the topic no longer has'
           || coalesce(': ' || closed.error, ''), closed.error_type, closed.handler, coalesce(closed.attempts, 0)
from gone left join closed using (subscription, partition, key)
"""
"""Turns what waits in lanes of partitions that nobody can claim any more into dead letters."""

UNPARK_FROM = """
with gone as (
    delete from headrace.parked where subscription = $1 and topic = $2 and partition = $3 and "offset" >= $4
    returning key
), begun as (
    update headrace.lane set attempts = 0, is_running = false
    where subscription = $1 and partition = $3 and key in (select key from gone)
)
select count(*) from gone
"""
"""Removes the events of a partition from an offset on, since they are read again; what is left of lanes begins anew."""

CLOSE_EMPTY = """
delete from headrace.lane where subscription = $1 and partition = $2 and not exists (
    select from headrace.parked
    where parked.subscription = lane.subscription and parked.partition = lane.partition and parked.key = lane.key
)
"""
"""Removes the lanes of a partition number that hold no event any more."""
