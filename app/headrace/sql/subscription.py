"""Queries on `headrace.subscription`: what operators asked of subscriptions, and all that is held of each."""

_IS_REWOUND = """exists (
    select from pg_locks
    where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
      and classid = hashtext('headrace.rewind')::oid and objid = hashtext(kept.subscription)::oid
      and objsubid = 2 and granted
)"""
"""Says whether a session lives that rewinds a subscription."""

_HELD = "(paused or rewind_began_at is not null)"
"""Says that a subscription is paused: by an operator, or for as long as it is rewound."""

REQUESTS = f"select {_HELD} as paused, retry_requested_at from headrace.subscription where subscription = $1"  # noqa: S608
"""Reads what an operator asked of a subscription."""

SET_PAUSED = f"""
insert into headrace.subscription as kept (subscription, paused) values ($1, $2)
on conflict (subscription) do update
set paused = excluded.paused, changed_at = now(),
    rewind_by = case when excluded.paused or {_IS_REWOUND} then kept.rewind_by end,
    rewind_began_at = case when excluded.paused or {_IS_REWOUND} then kept.rewind_began_at end
"""  # noqa: S608 - the part is that above
"""Pauses or resumes a subscription; its owners look at the row each second.

While it is rewound this counts afterwards; to resume it also ends the pause that a rewind has left which was cut off.
"""

HOLD_TO_REWIND = """
insert into headrace.subscription (subscription, rewind_by, rewind_began_at) values ($1, $2, now())
on conflict (subscription) do update
set changed_at = now(), rewind_by = excluded.rewind_by, rewind_began_at = excluded.rewind_began_at
"""
"""Pauses a subscription for as long as it is rewound, beside what an operator asks of it."""

RELEASE_REWOUND = """
update headrace.subscription set changed_at = now(), rewind_by = null, rewind_began_at = null
where subscription = $1 returning paused
"""
"""Ends the pause of a rewind; tells whether an operator has paused the subscription."""

TRY_REWIND = "select pg_try_advisory_lock(hashtext('headrace.rewind'), hashtext($1))"
"""Takes the right to rewind a subscription, for the session; false if another session has it."""

END_REWIND = "select pg_advisory_unlock(hashtext('headrace.rewind'), hashtext($1))"
"""Gives the right back."""

REWINDS = f"""
select subscription, rewind_by as by, rewind_began_at as began_at, {_IS_REWOUND} as running
from headrace.subscription as kept where rewind_began_at is not null
"""  # noqa: S608 - the part is that above
"""Lists the subscriptions that are paused by a rewind, and whether its session still lives."""

ALL_PAUSED = f"select subscription from headrace.subscription where {_HELD}"  # noqa: S608 - the part is that above
"""Lists the subscriptions that are paused."""

PAUSED_AMONG = f"""
select subscription from headrace.subscription where {_HELD} and subscription = any($1::text[])
"""  # noqa: S608 - the part is that above
"""Lists those of some subscriptions that are paused."""

TAKE_AUDIT_TURN = """
insert into headrace.subscription as kept (subscription, audit_begun_at) values ($1, now())
on conflict (subscription) do update set audit_begun_at = now()
where kept.audit_begun_at is null or kept.audit_begun_at <= now() - $2::float8 * interval '1 second'
returning true
"""
"""Begins the audit of a subscription if no process has begun one for a number of seconds."""

NOTE_AUDIT = """
insert into headrace.subscription as kept (subscription, audited_at, audit) values ($1, $2, $3)
on conflict (subscription) do update set audited_at = excluded.audited_at, audit = excluded.audit
where kept.audited_at is null or kept.audited_at < excluded.audited_at
"""
"""Keeps the result of an audit, unless there is one of a later snapshot."""

LAST_AUDIT = "select audited_at, audit -> 'mismatches' as mismatches from headrace.subscription where subscription = $1"
"""Tells when a subscription was last audited, and how many mismatches were found."""

LIST = """
with named as (
    select subscription from headrace.claim union select subscription from headrace.subscription
    union select subscription from headrace.lane union select subscription from headrace.dead_letter
)
select named.subscription,
       (select count(*) from headrace.claim where claim.subscription = named.subscription) as partitions,
       (select array_agg(distinct owner) filter (where owner is not null)
          from headrace.claim where claim.subscription = named.subscription) as owners,
       (select max(committed_at) from headrace.claim where claim.subscription = named.subscription) as committed_at,
       (select count(*) from headrace.state where state.subscription = named.subscription) as states,
       (select count(*) from headrace.lane where lane.subscription = named.subscription) as lanes,
       (select count(*) from headrace.dead_letter
         where dead_letter.subscription = named.subscription and decision is null) as dead_letters,
       (select count(*) from headrace.claim join headrace.ledger using (subscription, topic, partition)
         where claim.subscription = named.subscription and emits is not null
           and ledger.sequence > claim.emitted_through) as unpublished
from named where $1::text is null or named.subscription = $1 order by named.subscription
"""
"""Counts what the tables hold of each subscription, or of one.

`unpublished` are batches whose emitted events may not be in the log yet.
"""

REMOVE = {
    table: f"delete from headrace.{table} where subscription = $1"  # noqa: S608 - the tables are those below
    for table in (
        *("parked", "lane", "dead_letter", "effect", "step", "timer", "saga", "state", "ledger", "outage"),
        *("state_change", "claim_move", "claim", "subscription"),
    )
}
"""Deletes what each table holds of a subscription, table by table."""
