"""Queries that look for one event by its id, for `GET /events/{id}`."""

PARKED = """
select parked.topic, parked.partition, parked."offset", parked.source, parked.type, parked.parked_at,
       lane.error, lane.error_type, nullif(lane.due_at, 'infinity') as due_at, lane.attempts,
       head.event_id as head_id, head."offset" as head_offset
from headrace.parked join headrace.lane using (subscription, partition, key)
cross join lateral (
    select event_id, "offset" from headrace.parked first
    where first.subscription = lane.subscription and first.partition = lane.partition and first.key = lane.key
    order by number limit 1
) as head
where subscription = $1 and parked.event_id = $2
  and ($3::text is null or parked.source = $3) and ($4::text is null or parked.type = $4)
order by parked.number limit 100
"""
"""Reads where an event waits, and behind which one; a lane without a time is held."""

DEAD_LETTERS = """
select id, topic, partition, "offset", source, type, reason, error, handler, attempts, created_at, decision, decided_at,
       settled_at
from headrace.dead_letter
where subscription = $1 and event_id = $2
  and ($3::text is null or source = $3) and ($4::text is null or type = $4) and reason <> 'emit_refused'
order by settled_at is not null, created_at desc limit 100
"""
"""Reads the dead letters of an event, first those that are not settled, each the newest first."""

LEDGER = """
select c.topic, c.partition, c.next_offset, c.emitted_through, row.sequence, row.parked, row.dead, row.committed_at,
       row.emits, wanted.id, substring(row.marks from (position(wanted.id in row.ids) - 1) / 2 + 1 for 8) as "offset"
from headrace.claim c cross join lateral (
    select sequence, epoch, parked, dead, committed_at, ids, marks, emits from (
        select sequence, epoch, parked, dead, committed_at, ids, marks, emits, coalesce(
            sum(octet_length(ids)) over (order by sequence desc rows between unbounded preceding and 1 preceding), 0
        ) as newer
        from (
            select * from headrace.ledger l
            where l.subscription = c.subscription and l.topic = c.topic and l.partition = c.partition
              and octet_length(l.ids) > 0 order by l.sequence desc limit $4
        ) as newest
    ) as placed where newer < $5
) as row, unnest($3::bytea[]) as wanted (id)
where c.subscription = $1 and c.topic = $2 and row.epoch > 0 and position(wanted.id in row.ids) > 0
order by row.sequence desc limit 10
"""
"""Finds the batches that took identities in, among the newest ids of each claim on a topic.

An id has 16 bytes, its offset 8, so the offset stands at half the id's place.
"""

RETRIES_WITH_EMITS = """
select sequence, committed_at, emits from headrace.ledger
where subscription = $1 and topic = $2 and partition = $3 and sequence > $4 and kind = 1 and emits is not null
order by sequence limit $5
"""
"""Reads what lanes emitted after a batch."""

EFFECT = """
select attempts, error, started_at, case when isfinite(due_at) then due_at end as due_at, due_at = 'infinity' as held,
       exists (
           select from headrace.effect earlier
           where earlier.subscription = effect.subscription and earlier.partition = effect.partition
             and earlier.number < effect.number and earlier.key = effect.key
       ) as is_behind
from headrace.effect where subscription = $1 and identity = $2
"""
"""Reads where the effect of an event stands; no row if it has ended, or was given up on."""

STEPS = "select name from headrace.step where subscription = $1 and identity = $2 order by answered_at, name"
"""Reads the names of an effect's steps that are answered, as long as the effect has not ended."""

SINCE = """
with looked as (
    select min(row.committed_at) filter (where row.is_looked_at) as since, bool_and(row.is_looked_at) as is_whole
    from headrace.claim c cross join lateral (
        select committed_at, row_number() over (order by sequence desc) <= $2 and coalesce(
            sum(octet_length(ids)) over (order by sequence desc rows between unbounded preceding and 1 preceding), 0
        ) < $3 as is_looked_at
        from (
            select * from headrace.ledger l
            where l.subscription = c.subscription and l.topic = c.topic and l.partition = c.partition
              and octet_length(l.ids) > 0 order by l.sequence desc limit $2 + 1
        ) as newest
    ) as row
    where c.subscription = $1 group by c.topic, c.partition
)
select coalesce(max(since) filter (where not is_whole), min(since)) from looked
"""
"""Tells since when an event would have been found by its id.

Of the claims that keep more ids than are looked through, the one that is looked through least far back says so.
"""
