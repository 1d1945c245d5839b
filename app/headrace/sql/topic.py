"""Queries on `headrace.topic`: what the topics were when a service last started."""

KNOWN = """
select topic, count(*)::integer as partitions, max(log_id) as log_id
  from headrace.claim
 where $1::text[] is null or topic = any($1::text[])
 group by subscription, topic
having max(log_id) is not null
union
select topic, partitions, log_id
  from headrace.topic t
 where ($1::text[] is null or topic = any($1::text[]))
   and not exists (select from headrace.claim c where c.topic = t.topic and c.log_id is not null)
 order by topic, partitions, log_id
"""
"""Reads what topics were when they were last compared: a row per topic, or per subscription that reads it.

A subscription has one claim for each partition. `$1` null asks for all topics.
"""

REMEMBER = """
insert into headrace.topic (topic, partitions, log_id) values ($1, $2, $3)
on conflict (topic) do update set partitions = excluded.partitions, log_id = excluded.log_id, seen_at = now()
"""
"""Notes what a topic is now, for the next start."""
