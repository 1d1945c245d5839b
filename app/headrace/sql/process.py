"""Queries on `headrace.process`: which processes live."""

BEAT = """
insert into headrace.process (name, role, version, post) values ($1, $2, $3, $4)
on conflict (name) do update set seen_at = now()
"""
"""Notes that a process lives."""

FORGET = "delete from headrace.process where name = $1 or seen_at < now() - interval '1 day'"
"""Removes a process that ends, and those that died long ago."""

OLDER = """
with alive as (select * from headrace.process where seen_at > now() - $2 * interval '1 second')
select name, version from alive where post < $1
union
select owner, 'unknown' from headrace.claim
where owner is not null and committed_at > now() - $2 * interval '1 second'
  and not exists (select from headrace.process where name = owner)
order by name
"""
"""Lists the processes seen within a number of seconds whose code does not know a `post` migration.

A process that commits batches and has no row here runs code from before there was one.
"""
