"""Queries on `headrace.log_topic`, `headrace.log_partition` and `headrace.log_record`: the embedded log."""

TOPICS = """
select topic, partitions, (extract(epoch from created_at) * 1000000)::bigint as born
  from headrace.log_topic where topic = any($1)
"""
"""Reads the topics that exist.

The time of a topic's creation names the log: it moves along in a dump, and a topic created again has another.
"""

CREATE_TOPIC = """
with created as (
    insert into headrace.log_topic (topic, partitions) values ($1, $2) on conflict do nothing
    returning topic, partitions
)
insert into headrace.log_partition (topic, partition)
select topic, number from created, generate_series(0, partitions - 1) as number
"""
"""Creates a topic with its partitions, unless it exists."""

BOUNDS = """
select p.topic, p.partition, p.next_offset,
       (select min(r."offset") from headrace.log_record r where r.topic = p.topic and r.partition = p.partition)
  from headrace.log_partition p join unnest($1::text[], $2::integer[]) as n (topic, partition) using (topic, partition)
"""
"""Reads where partitions begin and end."""

FIRST_SINCE = """
select "offset" from headrace.log_record where topic = $1 and partition = $2 and "timestamp" >= $3
order by "offset" limit 1
"""
"""Finds the first record of a time or later."""

APPEND = """
with grown as (
    update headrace.log_partition p set next_offset = p.next_offset + n.records
      from unnest($1::text[], $2::integer[], $3::bigint[]) as n (topic, partition, records)
     where p.topic = n.topic and p.partition = n.partition
    returning p.topic, p.partition, p.next_offset - n.records as first_offset
), kept as (
    insert into headrace.log_record (topic, partition, "offset", "timestamp", key, value, headers)
    select r.topic, r.partition, g.first_offset + r.number, $8, r.key, r.value, r.headers
      from unnest($4::text[], $5::integer[], $6::bigint[], $7::bytea[], $9::bytea[], $10::bytea[])
           as r (topic, partition, number, key, value, headers)
      join grown g on g.topic = r.topic and g.partition = r.partition
)
select topic, partition, first_offset from grown
"""
"""Appends records to partitions.

Offsets follow from the row of the partition in the same statement, so they have no gap and never go back.
"""

READ = """
with sized as (
    select "offset", sum(
        coalesce(octet_length(key), 0)::bigint + coalesce(octet_length(value), 0) + octet_length(headers)
    ) over (order by "offset") as total
      from headrace.log_record
     where topic = $1 and partition = $2 and "offset" >= $3 order by "offset" limit $4
)
select "offset", "timestamp", key, value, headers from headrace.log_record
 where topic = $1 and partition = $2 and "offset" between $3 and (
    select greatest(max("offset") filter (where total <= $5), case when $6 then min("offset") end) from sized)
 order by "offset"
"""
"""Reads the records of a partition from an offset on, up to a number of bytes.

The sizes are summed first, from lengths that Postgres knows without reading large values; the values of the records
that fit are read afterwards. The first record is read whatever its size if $6 is true.
"""

READERS = """
select topic, partition, array_agg(subscription) filter (where subscription is not null) as claimed_by
from headrace.log_partition left join headrace.claim using (topic, partition) group by topic, partition
"""
"""Lists the partitions, each with the subscriptions that have claimed it."""

FIRST_KEPT = """
select least(
    coalesce((select r."offset" from headrace.log_record r where r.topic = $1 and r.partition = $2
               and r."timestamp" >= $3 order by r."offset" limit 1), p.next_offset),
    (select min(c.next_offset) - 1 from headrace.claim c where c.topic = $1 and c.partition = $2)
) from headrace.log_partition p where p.topic = $1 and p.partition = $2
"""
"""Tells the first offset that is kept: it is young enough, or the slowest subscription needs it."""

DELETE_BEFORE = """
delete from headrace.log_record where topic = $1 and partition = $2 and "offset" < least($3, $4 + (
    select min("offset") from headrace.log_record where topic = $1 and partition = $2))
"""
"""Deletes the first records of a partition before an offset, up to a number of records."""
