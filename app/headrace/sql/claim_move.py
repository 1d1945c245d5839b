"""Queries on `headrace.claim_move`: the claims that people have moved."""

NOTE = """
insert into headrace.claim_move (subscription, topic, partition, sequence, action, from_offset, next_offset,
                                 quiet_until, first_runs, changed, by, why)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb, $11, $12)
"""
"""Keeps that a claim was moved, by whom and why, and what its next owners have to know of it."""

COUNT = "select count(*) from headrace.claim_move where subscription = $1"
"""Counts the moves of a subscription's claims: another number tells that one was moved between two looks."""

WINDOW_FROM = """
select coalesce(max(sequence), 0) from headrace.claim_move
where subscription = $1 and topic = $2 and partition = $3 and action = 'rewind'
"""
"""Tells the first ledger row whose ids the dedupe window of a partition has; 0 for all."""

LAST = """
select distinct on (topic) topic, action, quiet_until, first_runs from headrace.claim_move
where subscription = $1 and partition = $2 order by topic, sequence desc
"""
"""Reads the last move of each topic's claim on a partition number."""

LIST = """
select topic, partition, action, from_offset, next_offset, changed::text as changed, by, why, moved_at
from headrace.claim_move where subscription = $1 order by moved_at desc, topic, partition limit $2
"""
"""Lists how the claims of a subscription were moved, the latest first."""

HINDRANCES = """
with moves as (
    select topic, action from headrace.claim_move where subscription = $1
    union all
    select topic, case when epoch = 0 then 'add' else 'accept' end from headrace.ledger
    where subscription = $1 and kind = 3 and not exists (
        select from headrace.claim_move noted
        where noted.subscription = ledger.subscription and noted.topic = ledger.topic
          and noted.partition = ledger.partition and noted.sequence = ledger.sequence
    )
)
select distinct topic, action from moves where action <> 'rewind' order by topic, action
"""
"""Tells which topics of a subscription were accepted from another log, or have got partitions since it began.

Rows of the ledger tell of those that were moved before moves were kept.
"""
