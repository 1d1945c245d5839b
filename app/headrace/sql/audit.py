"""Queries that compare the tables with each other, for the audit: each returns what a broken promise would leave."""

PAUSED = """
select now() as at, exists (
    select from headrace.subscription where subscription = $1 and (paused or rewind_began_at is not null)
) as paused
"""
"""Tells the time of the snapshot, and whether the subscription is paused."""

CLAIMS = """
select c.topic, c.partition, c.owner, c.epoch, c.next_offset, c.sequence, c.emitted_through, c.last_offset,
       c.claimed_at, c.committed_at, last.sequence as last_sequence, last.next_offset as last_next_offset,
       last.epoch as last_epoch, last.committed_at as last_at,
       unmarked.sequence as unmarked_sequence, unmarked.committed_at as unmarked_since
from headrace.claim c
left join lateral (
    select sequence, next_offset, epoch, committed_at from headrace.ledger l
    where l.subscription = c.subscription and l.topic = c.topic and l.partition = c.partition
    order by sequence desc limit 1
) as last on true
left join lateral (
    select sequence, committed_at from headrace.ledger l
    where l.subscription = c.subscription and l.topic = c.topic and l.partition = c.partition
      and l.sequence > c.emitted_through and l.emits is not null
    order by sequence limit 1
) as unmarked on true
where c.subscription = $1 order by c.topic, c.partition
"""
"""Reads the claims with their last ledger row, and the first one whose emits are not marked."""

_NEWEST = """
select topic, partition, newest.* from headrace.claim c cross join lateral (
    select sequence, kind, epoch, first_offset, next_offset, applied, skipped, parked, dead,
           octet_length(ids) as id_bytes, octet_length(marks) as mark_bytes, committed_at
    from headrace.ledger l
    where l.subscription = c.subscription and l.topic = c.topic and l.partition = c.partition
    order by sequence desc limit $2
) as newest where c.subscription = $1
"""
"""Reads the newest rows of each claim, without what is large."""

TOTALS = f"""
with newest as ({_NEWEST})
select topic, partition, count(*) as rows, min(sequence) as first_sequence, min(committed_at) as since,
       max(sequence) filter (where kind = 3) as moved_sequence, max(committed_at) filter (where kind = 3) as moved_at,
       coalesce(sum(parked) filter (where kind in (0, 2)), 0) as entered,
       coalesce(sum(applied + skipped + dead) filter (where kind = 1), 0) as "left"
from newest group by topic, partition
"""  # noqa: S608 - the rows are those above
"""Sums up the newest rows of each claim: since when they are known, and what entered and left lanes."""

BROKEN_ROWS = f"""
with newest as ({_NEWEST}), placed as (
    select *, lag(sequence) over by_sequence as before_sequence, lag(next_offset) over by_sequence as before_offset,
           lag(epoch) over by_sequence as before_epoch, lag(committed_at) over by_sequence as before_at
    from newest window by_sequence as (partition by topic, partition order by sequence)
)
select * from placed
where sequence <> before_sequence + 1
   or (kind <> 3 and epoch > 0 and first_offset <> before_offset)
   or (kind <> 3 and next_offset < first_offset) or (kind in (1, 2, 4, 5) and next_offset <> first_offset)
   or (kind = 0 and applied + skipped + parked + dead > next_offset - first_offset)
   or (epoch > 0 and epoch < before_epoch)
   or id_bytes % 16 <> 0 or mark_bytes <> id_bytes / 16 * 12
   or (kind = 0 and id_bytes < 16 * (applied + parked))
   or (epoch > 0 and id_bytes > 16 * (applied + skipped + parked + dead))
order by topic, partition, sequence limit $3
"""  # noqa: S608 - the rows are those above
"""Finds rows that do not continue the one before, or whose counts do not agree; rows that retention dropped show too.

A row of kind 3 moved the claim, and one of epoch 0 was inherited: neither continues the offsets before it.
"""

_IDS = """
with newest as (
    select sequence, ids, coalesce(
        sum(octet_length(ids)) over (order by sequence desc rows between unbounded preceding and 1 preceding), 0
    ) as newer from (
        select sequence, ids from headrace.ledger
        where subscription = $1 and topic = $2 and partition = $3 and sequence > $4 and octet_length(ids) > 0
        order by sequence desc limit $5
    ) as rows
), known as (
    select sequence, substring(packed.ids from 16 * place + 1 for 16) as id
    from newest cross join lateral (select ids || ''::bytea as ids offset 0) as packed,
         generate_series(0, octet_length(packed.ids) / 16 - 1) as place
    where newer < $6
), counted as (
    select id, count(*) as times, min(sequence) as first_sequence, max(sequence) as last_sequence
    from known group by id
)
"""
"""Counts each id of the newest rows behind a sequence number; `||` reads an id's row once instead of once an id."""

COUNT_IDS = f"{_IDS} select coalesce(sum(times), 0)::bigint as ids, count(*) as distinct from counted"  # noqa: S608 - the ids are those above
"""Counts the newest ids of one claim, up to a number of bytes, and the distinct ones among them."""

REPEATED_IDS = f"{_IDS} select * from counted where times > 1 order by last_sequence, id limit $7"  # noqa: S608 - likewise
"""Lists the ids that one claim has more than once among them."""

EMPTY_LANES = """
select partition, key from headrace.lane where subscription = $1 and not exists (
    select from headrace.parked
    where parked.subscription = lane.subscription and parked.partition = lane.partition and parked.key = lane.key
) order by partition, key limit $2
"""
"""Finds lanes without an event: their keys are held back for nothing."""

PARKED_WITHOUT_LANE = """
select partition, key, count(*) as events from headrace.parked where subscription = $1 and not exists (
    select from headrace.lane
    where lane.subscription = parked.subscription and lane.partition = parked.partition and lane.key = parked.key
) group by partition, key order by partition, key limit $2
"""
"""Finds parked events that no lane leads to: nobody ever retries them."""

PARKED_BY_PARTITION = (
    "select partition, count(*) as events from headrace.parked where subscription = $1 group by partition"
)
"""Counts the parked events by partition number."""

_KNOWN = """
unnest($2::text[], $3::int[], $4::bigint[], $5::timestamptz[]) as claim (topic, partition, next_offset, since)
"""
"""Is the claims, each with the time since when positions can be compared with it."""

MISPLACED_PARKED = f"""
select parked.topic, parked.partition, parked.key, parked."offset", claim.next_offset
from headrace.parked left join {_KNOWN} using (topic, partition)
where subscription = $1 and (
    claim.next_offset is null or (parked."offset" >= claim.next_offset and parked.parked_at > claim.since)
) order by parked.topic, parked.partition, parked."offset" limit $6
"""  # noqa: S608 - the claims are those above
"""Finds parked events that their claim has not come to, and those that have no claim."""

MISPLACED_DEAD = f"""
select dead_letter.topic, dead_letter.partition, dead_letter."offset", claim.next_offset
from headrace.dead_letter join {_KNOWN} using (topic, partition)
where subscription = $1 and decision is null and reason <> 'emit_refused'
  and dead_letter."offset" >= claim.next_offset and created_at > claim.since
order by dead_letter.topic, dead_letter.partition, dead_letter."offset" limit $6
"""  # noqa: S608 - the claims are those above
"""Finds open dead letters that their claim has not come to."""

OVERTAKEN = """
with waiting as (
    select topic, partition, key, number, "offset", parked_at,
           max("offset") over (partition by topic, partition, key order by number
                               rows between unbounded preceding and 1 preceding) as overtook
    from headrace.parked
    join unnest($2::text[], $3::int[], $4::timestamptz[]) as claim (topic, partition, since) using (topic, partition)
    where subscription = $1 and parked_at > claim.since and number < 1048576
)
select * from waiting where "offset" < overtook and not exists (
    select from headrace.dead_letter replayed
    where replayed.subscription = $1 and replayed.topic = waiting.topic and replayed.partition = waiting.partition
      and replayed."offset" = waiting."offset" and replayed.settled_at is not null
) order by topic, partition, key, number limit $5
"""
"""Finds events that wait behind a later one of their key, and were not put there by a replay.

Numbers from 2^20 on begin with a place in a sequence, which the log does not follow (`order/numbers.py`).
"""

IN_TWO_PLACES = """
with open as (
    select topic, partition, "offset" from headrace.dead_letter
    where subscription = $1 and decision is null and reason <> 'emit_refused'
)
select topic, partition, "offset", true as is_parked from open join headrace.parked using (topic, partition, "offset")
where subscription = $1
union all
select topic, partition, "offset", false from open group by topic, partition, "offset" having count(*) > 1
order by topic, partition, "offset" limit $2
"""
"""Finds events that are open dead letters and wait in a lane as well, or are open dead letters twice."""

ODD_STATES = """
select state, key, version from headrace.state tablesample system ($2)
where subscription = $1 and (version < 1 or jsonb_typeof(data) = 'null') order by state, key limit $3
"""
"""Finds states without a change or a value, in a share of the table (percent)."""

STATE_BYTES = "select pg_relation_size('headrace.state')"
"""Tells how large the table of states is."""
