"""The query that commits several small batches, of `headrace.claim`, `headrace.ledger` and `headrace.state`."""

COMMIT = """
with batch as (
    select * from json_to_recordset($1::json) as told (
        number int, subscription text, topic text, partition int, epoch bigint, token uuid, held_offset bigint,
        held_sequence bigint, next_offset bigint, sequence bigint, emitted_through bigint, last_offset bigint,
        last_timestamp bigint, last_crc bigint, kind int, applied int, skipped int, parked int, dead int
    )
), moved as (
    update headrace.claim as held
    set next_offset = batch.next_offset, sequence = batch.sequence, emitted_through = batch.emitted_through,
        last_offset = batch.last_offset, last_timestamp = batch.last_timestamp, last_crc = batch.last_crc,
        crashes = case when batch.next_offset > held.next_offset then 0 else held.crashes end, committed_at = now()
    from batch
    where held.subscription = batch.subscription and held.topic = batch.topic and held.partition = batch.partition
      and held.epoch = batch.epoch and held.token = batch.token and held.next_offset = batch.held_offset
      and held.sequence = batch.held_sequence
    returning 1
), row as (
    insert into headrace.ledger (subscription, topic, partition, sequence, kind, epoch, first_offset, next_offset,
                                 applied, skipped, parked, dead, ids, marks, emits)
    select subscription, topic, partition, sequence, kind, epoch, held_offset, next_offset, applied, skipped, parked,
           dead, ($2::bytea[])[number + 1], ($3::bytea[])[number + 1], ($4::bytea[])[number + 1]
    from batch
), written as (
    insert into headrace.state as kept (subscription, state, key, partition, version, data, expires_at, class_version)
    select batch.subscription, new.state, new.key, batch.partition, new.version, new.data,
           clock_timestamp() + new.ttl, new.class_version
    from json_to_recordset($5::json) as new (
        batch int, state text, key text, version bigint, data jsonb, ttl interval, class_version int
    ) join batch on batch.number = new.batch
    order by batch.subscription, new.state, new.key collate "C"
    on conflict (subscription, state, key) do update
    set version = excluded.version, data = excluded.data, partition = excluded.partition,
        expires_at = excluded.expires_at, class_version = excluded.class_version
    where kept.version = excluded.version - 1
    returning 1
)
select 1 / (
    set_config('lock_timeout', $8, true) is not null and (select count(*) from written) = $7::int
    and (select count(*) from moved) = $6::int
)::int
"""
"""Moves claims along, writes their ledger rows and states, in a transaction of its own: all of it, or nothing.

States are locked before claims, as in a batch's own transaction, and both are compared as there. The claims are $6 and
the states $7: if fewer could be written, the query ends with a division by zero. It waits for a row for $8
milliseconds at most, so that a row that is locked holds up nothing else.
"""
