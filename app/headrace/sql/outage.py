"""Queries on `headrace.outage`: the handlers that meet an outage, as the processes see it."""

TELL = """
insert into headrace.outage (subscription, owner, handler, error, since) values ($1, $2, $3, $4, to_timestamp($5))
on conflict (subscription, owner) do update
set handler = excluded.handler, error = excluded.error, since = excluded.since
"""
"""Notes that a handler meets an outage in a process."""

OVER = "delete from headrace.outage where subscription = $1 and owner = $2"
"""Notes that the outage is over for a process, or that the process stops."""

AMONG = """
select subscription, owner, handler, error, since from headrace.outage
where subscription = any($1::text[]) and exists (
    select from headrace.claim where claim.subscription = outage.subscription and claim.owner = outage.owner
)
order by subscription, since, owner
"""
"""Reads the outages of some subscriptions that processes with a claim see."""
