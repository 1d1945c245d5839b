"""Queries on `headrace.dead_letter`: the events that were given up on, and what a person decided about them."""

INSERT = """
insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", key, record_key, value,
                                  headers, source, event_id, type, reason, error, handler, attempts)
select $1, $2, new.*
from unnest($3::text[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[], $10::text[],
            $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::int[]) as new
"""
"""Writes dead letters."""

INSERT_REFUSED_EMIT = """
insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", key, record_key, value,
                                  headers, source, event_id, type, reason, error)
select $1, $2, $3, -1, (extract(epoch from now()) * 1000)::bigint, $4, $4, $5, $6, $7, $8, $9, 'emit_refused', $10
where not exists (
    select from headrace.dead_letter
    where subscription = $1 and source = $7 and event_id = $8 and reason = 'emit_refused' and decision is null
)
"""
"""Writes an emitted event that the log refused; it has no offset. A second owner may find it refused as well."""

WAITING_REPLAYS = """
with waiting as (
    select id, partition, reason, topic, "offset", "timestamp", record_key, value, headers,
           sum(coalesce(octet_length(value), 0) + octet_length(headers))
               over (partition by partition order by topic, "offset", id) as bytes,
           row_number() over (partition by partition order by topic, "offset", id) as place
    from headrace.dead_letter
    where subscription = $1 and partition = any($2::int[]) and decision = 'replay' and settled_at is null
)
select id, partition, reason, topic, "offset", "timestamp", record_key, value, headers from waiting
where place = 1 or (place <= $3 and bytes <= $4) order by partition, place
"""
"""Reads the first dead letters of each partition that are to be replayed."""

SETTLE_REPLAYS = """
update headrace.dead_letter set settled_at = now()
where id = any($1::uuid[]) and decision = 'replay' and settled_at is null returning id
"""
"""Notes that replays were taken up; returns those that still were to be."""

TAKE_REFUSED_EMITS = """
update headrace.dead_letter set settled_at = now() where id in (
    select id from headrace.dead_letter
    where subscription = $1 and decision = 'replay' and settled_at is null limit 1000 for update skip locked
)
returning topic, record_key, value, headers
"""
"""Takes up the replays of events that the log refused, of an outbox: they are published again."""

REOPEN_REPLAYS = """
update headrace.dead_letter set decision = null, decided_at = null, error = again.error
from unnest($1::uuid[], $2::text[]) as again (id, error)
where dead_letter.id = again.id and decision = 'replay' and settled_at is null
"""
"""Returns replays that are not possible to the open dead letters, with the new reason."""

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
id, subscription, topic, partition, "offset", "timestamp", key, source, event_id, type, reason, error, handler,
attempts, created_at, decision, decided_at, settled_at"""
"""Names the columns that a list shows."""

LIST = f"""
select {_COLUMNS} from headrace.dead_letter
where ($1::text is null or starts_with(subscription, $1 || '.'))
  and ($2::text is null or $2 in (subscription, substr(subscription, strpos(subscription, '.') + 1)))
  and ($3::text is null or reason = $3) and ($4::boolean is null or (decision is null) = $4)
  and ($5::timestamptz is null or (created_at, id) < ($5, $6::uuid))
order by created_at desc, id desc limit $7
"""  # noqa: S608 - the columns are those above
"""Lists dead letters, the newest first, from a place on."""

READ = f"""
select {_COLUMNS}, record_key, value, headers from headrace.dead_letter
where id = $1 and ($2::text is null or starts_with(subscription, $2 || '.'))
"""  # noqa: S608 - the columns are those above
"""Reads one dead letter with its record."""

DECIDE = """
update headrace.dead_letter set decision = $2, decided_at = now()
where id = $1 and ($3::text is null or starts_with(subscription, $3 || '.')) and decision is null
returning subscription, topic, partition, "offset", reason, event_id, source
"""
"""Decides about one dead letter, if it is open."""

EXPIRE = """
delete from headrace.dead_letter where id in (
    select id from headrace.dead_letter
    where decision is not null and decided_at < now() - $1 * interval '1 day'
      and (decision = 'discard' or settled_at is not null)
    limit $2
)
"""
"""Deletes some of what was discarded, or replayed and taken up, longer ago than a number of days."""
