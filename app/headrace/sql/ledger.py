"""Queries on `headrace.ledger`: a row for each committed batch, in a table for each day."""

INSERT = """
insert into headrace.ledger (subscription, topic, partition, sequence, kind, epoch, first_offset, next_offset,
                             applied, skipped, parked, dead, ids, marks, emits)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""
"""Writes what one batch did."""

NEWEST_IDS = """
select sequence, ids, marks, extract(epoch from committed_at)::float8 as at from headrace.ledger
where subscription = $1 and topic = $2 and partition = $3 and sequence < $4 and length(ids) > 0
order by sequence desc limit $5
"""
"""Reads the newest ids of a partition before a sequence number, to fill its dedupe window."""

UNPUBLISHED_EMITS = """
select sequence, emits from headrace.ledger
where subscription = $1 and topic = $2 and partition = $3 and sequence > $4 and emits is not null
order by sequence limit 100
"""
"""Reads the oldest emits that are not known to be in the log."""

LAST_SEQUENCE = (
    "select coalesce(max(sequence), 0) from headrace.ledger where subscription = $1 and topic = $2 and partition = $3"
)
"""Tells the last row of a partition, if the topic had one of that number before."""

FIRST_ROWS = """
select c.topic, c.partition, first.* from headrace.claim c cross join lateral (
    select sequence, kind, first_offset from headrace.ledger l
    where l.subscription = c.subscription and l.topic = c.topic and l.partition = c.partition
    order by sequence limit 1
) as first where c.subscription = $1
"""
"""Reads the oldest row that is kept of each claim."""

EMITS_OF_BATCHES = """
select sequence, kind, first_offset, emits from headrace.ledger
where subscription = $1 and topic = $2 and partition = $3 and sequence > $4 and next_offset > $5 and kind in (0, 1)
  and emits is not null
order by sequence limit 100
"""
"""Reads what handlers have emitted from an offset on, row by row."""

COPY_IDS = """
with newest as (
    select sequence, ids, marks,
           coalesce(sum(length(ids)) over (order by sequence desc rows between unbounded preceding and 1 preceding), 0)
               as newer_bytes
    from headrace.ledger
    where subscription = $1 and topic = $2 and partition = $3 and length(ids) > 0
)
insert into headrace.ledger (subscription, topic, partition, sequence, kind, epoch, first_offset, next_offset,
                             applied, skipped, parked, dead, ids, marks)
select $1, $2, $4, $5 + row_number() over (order by sequence), 0, 0, $6, $6, 0, 0, 0, 0, ids, marks
from newest where newer_bytes < $7
returning length(ids) as bytes
"""
"""Copies the newest ids of one partition into the ledger of another, as batches of epoch 0 that did nothing else."""

TODAY = "select (clock_timestamp() at time zone 'utc')::date"
"""Tells the day by the clock of Postgres."""

TRY_LOCK_DAYS = "select pg_try_advisory_xact_lock(hashtext('headrace.ledger'))"
"""Lets one process at a time change the partitions of days, until the transaction ends."""

DAYS = """
select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'headrace.ledger'::regclass and c.relname ~ '^ledger_[0-9]{8}$'
"""
"""Lists the partitions of days."""

HAS_ROWS_IN_DEFAULT = (
    "select exists (select from headrace.ledger_default where committed_at >= $1 and committed_at < $2)"
)
"""Tells whether rows of a day went into `ledger_default`."""

LAST_IDS_BY_CLAIM = """
select subscription, topic, partition, last.sequence from headrace.claim, lateral (
    select kept.sequence from headrace.{table} kept
    where kept.subscription = claim.subscription and kept.topic = claim.topic and kept.partition = claim.partition
      and length(kept.ids) > 0
    order by kept.sequence desc limit 1
) last
"""
"""Reads the last row with ids in one `{table}` of the ledger, by claim."""

SIZES_OF_NEWER_IDS = """
select length(ids) as bytes from headrace.ledger
where subscription = $1 and topic = $2 and partition = $3 and sequence > $4 and length(ids) > 0 order by sequence
"""
"""Reads how many bytes of ids a claim has behind a sequence number, row by row."""

CREATE_DAY = "create table headrace.{table} partition of headrace.ledger for values from ('{begin}') to ('{end}')"
"""Makes the partition of one day."""

DROP_DAY = "drop table headrace.{table}"
"""Drops the partition of one day."""
