"""Queries on `headrace.saga`: where each saga stands. What it knows is in its state."""

WRITE = """
insert into headrace.saga as kept (subscription, partition, key, status, step, reason, ended_at)
select $1, $2, new.key, new.data->>'status', new.data->>'step', new.data->>'reason',
       case when new.data->>'status' in ('completed', 'compensated', 'timed_out') then now() end
from unnest($3::text[], $4::jsonb[]) as new (key, data)
where new.data->>'status' <> 'new'
on conflict (subscription, key) do update
set partition = excluded.partition, status = excluded.status, step = excluded.step, reason = excluded.reason,
    changed_at = now(), ended_at = coalesce(kept.ended_at, excluded.ended_at)
returning status, extract(epoch from ended_at - started_at)::float8 as seconds, ended_at = now() as has_ended
"""
"""Follows the states of sagas; tells which of them have ended, and how long each took."""

OPEN = """
select count(*) as open, coalesce(extract(epoch from now() - min(started_at)), 0)::float8 as oldest_seconds
from headrace.saga where subscription = $1 and ended_at is null
"""
"""Counts the sagas that have not ended, and tells the age of the oldest."""

LIST = """
select key, status, step, reason, started_at, changed_at, ended_at from headrace.saga
where subscription = $1 and ($2::text is null or status = $2) and ($3::text is null or key > $3) order by key limit $4
"""
"""Lists the sagas of a subscription, from a key on."""

WAIT_FOR_OTHERS = """
select status, step, count(*) as sagas, min(key) as key from headrace.saga
where subscription = $1 and partition = $2 and ended_at is null
  and step <> all(case status when 'running' then $3::text[] else $4::text[] end)
group by status, step order by status, step limit 1
"""
"""Finds open sagas of a partition that wait for none of these steps, or for the undo of none of those."""

OLDEST_OPEN = """
select key, status, step, reason, started_at, changed_at, ended_at from headrace.saga
where subscription = $1 and ended_at is null order by started_at limit $2
"""
"""Lists the sagas that have been open for longest."""

READ = """
select saga.key, saga.status, saga.step, saga.reason, saga.started_at, saga.changed_at, saga.ended_at,
       state.data::text as data
from headrace.saga join headrace.state using (subscription, key)
where saga.subscription = $1 and saga.key = $2 and state.state = $3
"""
"""Reads one saga with its state."""

RESET = "delete from headrace.saga where subscription = $1 and partition = any($2::int[])"
"""Removes the sagas of some partitions: their keys begin anew."""

FORGET = "delete from headrace.saga where subscription = $1 and key = any($2::text[])"
"""Removes sagas that had not begun at the place that a person goes back to."""

REOPEN = "update headrace.saga set ended_at = null where subscription = $1 and key = any($2::text[])"
"""Lets sagas be open again that are remade; what is written behind it ends those that had ended."""
