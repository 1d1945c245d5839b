"""Queries on `headrace.dead_letter`: the events that were given up on, and what a person decided about them."""

INSERT = """
insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", key, record_key, value,
                                  headers, source, event_id, type, reason, error, error_type, handler, attempts,
                                  edited_value, history)
select $1, $2, new.topic, new.at, new.millis, new.key, new.record_key,
       case when before.edited_value is null then new.value else before.value end,
       new.headers, new.source, new.event_id, new.type, new.reason, new.error, new.error_type, new.handler,
       new.attempts, before.edited_value, coalesce(before.history, '[]')
from unnest($3::text[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[], $10::text[],
            $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::int[])
    as new (topic, at, millis, key, record_key, value, headers, source, event_id, type, reason, error, error_type,
            handler, attempts)
left join lateral (
    select letter.value, letter.edited_value, letter.history from headrace.dead_letter as letter
    where letter.subscription = $1 and letter.partition = $2 and letter.topic = new.topic and letter."offset" = new.at
      and letter.decision = 'replay' and letter.settled_at is not null and letter.reason <> 'expired'
      and letter."timestamp" = new.millis
      and coalesce(letter.edited_value, letter.value) is not distinct from new.value
    order by letter.settled_at desc limit 1
) as before on true
"""
"""Writes dead letters. One that was replayed and has failed again keeps its original record and its history."""

INSERT_REFUSED_EMIT = """
insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", key, record_key, value,
                                  headers, source, event_id, type, reason, error, error_type, edited_value, history)
select $1, $2, $3, -1, (extract(epoch from now()) * 1000)::bigint, $4, $4,
       case when before.edited_value is null then $5 else before.value end,
       $6, $7, $8, $9, 'emit_refused', $10, $11, before.edited_value, coalesce(before.history, '[]')
from (values (true)) as one left join lateral (
    select value, edited_value, history from headrace.dead_letter
    where subscription = $1 and source = $7 and event_id = $8 and type = $9 and reason = 'emit_refused'
      and decision = 'replay' and settled_at is not null and coalesce(edited_value, value) is not distinct from $5
    order by settled_at desc limit 1
) as before on true
where not exists (
    select from headrace.dead_letter
    where subscription = $1 and source = $7 and event_id = $8 and reason = 'emit_refused' and decision is null
)
"""
"""Writes an emitted event that the log refused; it has no offset. A second owner may find it refused as well.

One that was replayed and is refused again keeps its original value, its edit and its history.
"""

WAITING_REPLAYS = """
with waiting as (
    select letter.*,
           sum(coalesce(octet_length(coalesce(edited_value, value)), 0) + octet_length(headers))
               over (partition by letter.partition order by topic, "offset", id) as bytes,
           row_number() over (partition by letter.partition order by topic, "offset", id) as place
    from unnest($2::int[]) as asked (number)
    cross join lateral (
        select id, partition, reason, topic, "offset", "timestamp", record_key, value, edited_value, headers
        from headrace.dead_letter
        where subscription = $1 and partition = asked.number and decision = 'replay' and settled_at is null
        order by topic, "offset", id limit $3
    ) as letter
)
select id, partition, reason, topic, "offset", "timestamp", record_key, value, edited_value, headers from waiting
where place = 1 or bytes <= $4 order by partition, place
"""
"""Reads the first dead letters of each partition that are to be replayed, in the order of the log."""

SETTLE_REPLAYS = """
update headrace.dead_letter set settled_at = now()
where id = any($1::uuid[]) and decision = 'replay' and settled_at is null returning id
"""
"""Notes that replays were taken up; returns those that still were to be."""

WAITING_REFUSED_EMITS = """
with waiting as (
    select id, topic, record_key, coalesce(edited_value, value) as value, headers, created_at from headrace.dead_letter
    where subscription = $1 and decision = 'replay' and settled_at is null
      and coalesce(record_key, ''::bytea) <> all($2::bytea[])
    order by created_at, id limit 1000 for update skip locked
), first as (
    select waiting.*, row_number() over earliest as place,
           sum(coalesce(octet_length(value), 0) + octet_length(headers)) over earliest as bytes
    from waiting window earliest as (order by created_at, id rows unbounded preceding)
)
select id, topic, record_key, value, headers from first where bytes <= $3 or place = 1 order by place
"""
"""Locks the first refused events of an outbox that are to be published again, as edited, but for some keys.

They have at most so many bytes together, unless it is a single one.
"""

REOPEN_REPLAYS = """
update headrace.dead_letter
set decision = null, decided_at = null, error = again.error, history = history || jsonb_build_object(
    'did', 'refuse', 'by', 'the owner of the partition', 'at', now(), 'why', again.error)
from unnest($1::uuid[], $2::text[]) as again (id, error)
where dead_letter.id = again.id and decision = 'replay' and settled_at is null
"""
"""Returns replays that are not possible to the open dead letters, with the new reason."""

OF_LOST_PARTITIONS = """
select letter.id, coalesce(letter.record_key, letter.key, ''::bytea) as key from headrace.dead_letter as letter
where subscription = any($1::text[]) and partition >= $2 and settled_at is null
  and (decision is null or decision = 'replay')
  and not exists (
      select from headrace.claim
      where claim.subscription = letter.subscription and claim.partition = letter.partition
  )
"""
"""Finds letters that may be replayed, of partitions that nobody can claim any more."""

FOLLOW_KEYS = """
update headrace.dead_letter set partition = moved.partition
from unnest($1::uuid[], $2::int[]) as moved (id, partition) where dead_letter.id = moved.id
"""
"""Gives letters to the owners of other partitions."""

COUNT_OPEN_BY_REASON = """
select reason, count(*) as open from headrace.dead_letter
where subscription = $1 and decision is null and partition = any($2::int[]) group by reason
"""
"""Counts the open dead letters of some partitions by reason."""

COUNT_OPEN = (
    "select subscription, count(*) as open from headrace.dead_letter where decision is null group by subscription"
)
"""Counts the dead letters of each subscription that wait for a decision."""

_COLUMNS = """
id, subscription, topic, partition, "offset", "timestamp", key, source, event_id, type, reason, error, error_type,
handler, attempts, created_at, edited_value is not null as is_edited, decision, decided_at, settled_at,
case when decision is not null then history -> -1 ->> 'by' end as decided_by"""
"""Names the columns that a list shows."""

_WANTED = """
    ($1::text is null or starts_with(subscription, $1 || '.'))
and ($2::text is null or $2 in (subscription, substr(subscription, strpos(subscription, '.') + 1)))
and ($3::text is null or type = $3) and ($4::bytea is null or key = $4)
and case when $5::text is null then reason <> 'expired' else reason = $5 end
and ($6::text is null or error_type = $6) and ($7::text is null or handler = $7)
and ($8::timestamptz is null or created_at >= $8) and ($9::timestamptz is null or created_at < $9)
and ($10::boolean is null or (decision is null) = $10)"""
"""Says which letters a filter means; of those that have expired only what asks for them."""

LIST = f"""
select {_COLUMNS} from headrace.dead_letter
where {_WANTED} and ($11::timestamptz is null or (created_at, id) < ($11, $12::uuid))
order by created_at desc, id desc limit $13
"""  # noqa: S608 - the parts are those above
"""Lists dead letters, the newest first, from a place on."""

GROUPS = f"""
with counted as (
    select subscription, reason, type, handler, error_type, count(*) as letters, min(created_at) as first_at,
           max(created_at) as last_at, (array_agg(id order by created_at desc, id desc))[1] as newest
    from headrace.dead_letter where {_WANTED} group by subscription, reason, type, handler, error_type
)
select counted.*, dead_letter.error, (sum(letters) over ())::bigint as total
from counted left join headrace.dead_letter on dead_letter.id = counted.newest
order by letters desc, last_at desc, newest limit $11
"""  # noqa: S608 - the parts are those above
"""Counts dead letters by what failed and how, the largest group first; `total` is over all groups."""

READ = f"""
select {_COLUMNS}, record_key, value, headers, edited_value, history from headrace.dead_letter
where id = $1 and ($2::text is null or starts_with(subscription, $2 || '.'))
"""  # noqa: S608 - the columns are those above
"""Reads one dead letter with its record and its history."""

DECIDE = """
update headrace.dead_letter
set decision = $2, decided_at = now(),
    history = history || jsonb_build_object('did', $2::text, 'by', $4::text, 'at', now(), 'why', $5::text)
where id = $1 and ($3::text is null or starts_with(subscription, $3 || '.')) and decision is null
returning subscription, topic, partition, "offset", reason, event_id, source
"""
"""Decides about one dead letter, if it is open."""

DECIDE_MANY = f"""
with chosen as (
    select id, subscription, partition, topic, "offset" from headrace.dead_letter
    where {_WANTED} and decision is null and created_at <= coalesce($11::timestamptz, now())
      and ($12::text is null or (subscription, partition, topic, "offset", id)
                                > ($12, $13::int, $14::text, $15::bigint, $16::uuid))
    order by subscription, partition, topic, "offset", id limit $17 for update
), decided as (
    update headrace.dead_letter as letter
    set decision = $18, decided_at = now(),
        history = history || jsonb_build_object('did', $18::text, 'by', $19::text, 'at', now(), 'why', $20::text)
    from chosen where letter.id = chosen.id
)
select coalesce($11::timestamptz, now()) as begun_at, subscription, partition, topic, "offset", id from chosen
order by subscription, partition, topic, "offset", id
"""  # noqa: S608 - the parts are those above
"""Decides about the next open letters of a filter, in the order of the log; later letters than its begin stay."""

EDIT = """
update headrace.dead_letter
set edited_value = $2,
    history = history || jsonb_build_object('did', 'edit', 'by', $4::text, 'at', now(), 'why', $5::text)
where id = $1 and ($3::text is null or starts_with(subscription, $3 || '.')) and decision is null
returning subscription, topic, partition, "offset", reason, event_id, source
"""
"""Keeps another value beside the record of an open letter."""

EXPIRE = """
with old as (
    select id, case decision when 'discard' then "offset" >= 0 or subscription like '%.outbox'
                             when 'replay' then "offset" >= 0 and edited_value is not null
                             else false end as counts
    from headrace.dead_letter
    where decision is not null and decided_at < now() - $1 * interval '1 day'
      and (decision = 'discard' or settled_at is not null) and (decision = 'rewind' or reason <> 'expired')
    limit $2
), deleted as (
    delete from headrace.dead_letter where id in (select id from old where not counts)
), emptied as (
    update headrace.dead_letter
    set reason = 'expired', error = 'it has expired; its decision is kept, since the log may have the event',
        error_type = null, handler = null, key = null, record_key = null, value = null, headers = '\\x90',
        edited_value = case decision when 'replay' then edited_value end, history = '[]'
    where id in (select id from old where counts)
)
select count(*) from old
"""
"""Ends some of what was discarded, or replayed and taken up, longer ago than a number of days; tells how many.

What tells how the log is to be read stays: that an event was discarded, and how one was edited before its replay.
"""

PLACES = """
select topic, partition, "offset", edited_value, decision,
       coalesce(decision = 'replay' and settled_at is not null, false) as is_replayed
from headrace.dead_letter where subscription = $1 and decision is distinct from 'rewind' order by created_at
"""
"""Tells which records of the log became dead letters, and what came of them."""

CHANGES = """
select count(*) as letters, count(decision) as decided, count(settled_at) as settled
from headrace.dead_letter where subscription = $1
"""
"""Tells whether anything about a subscription's dead letters has changed between two looks."""

IDENTITIES = """
select source, type, event_id, edited_value is not null as is_edited,
       decision = 'replay' and settled_at is not null as is_replayed
from headrace.dead_letter
where (subscription = $1 or subscription = $2 and type = any($3::text[]))
  and event_id is not null and decision is distinct from 'rewind'
order by created_at
"""
"""Tells which events became dead letters, of a subscription or for some types of the outbox, and what came of them."""

OF_RANGE = """
select source, type, event_id, "offset", decision, edited_value is not null as is_edited, settled_at,
       case when is_inexact then headers end as headers, case when is_inexact then value end as value
from headrace.dead_letter cross join lateral (
    select length(source) >= 2000 or strpos(source || type || event_id, chr(65533)) > 0 as is_inexact
) as names
where subscription = $1 and topic = $2 and partition = $3 and "offset" >= $4 and decision is distinct from 'rewind'
order by "offset"
"""
"""Reads the dead letters of a partition from an offset on, and what was decided about them.

Those whose names may have been cut, or have lost a NUL, come with their record.
"""

REWIND = """
update headrace.dead_letter
set decision = 'rewind', decided_at = now(), settled_at = now(), history = history || jsonb_build_object(
    'did', 'rewind', 'by', $5::text, 'at', now(), 'why', $6::text)
where subscription = $1 and topic = $2 and partition = $3 and "offset" >= $4
  and (decision is null or decision = 'replay' or decision = 'discard' and event_id is null)
"""
"""Notes that dead letters mean nothing any more, since their records are read again.

What was discarded stays so if it has an identity, by which it is skipped.
"""
