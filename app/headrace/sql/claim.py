"""Queries on `headrace.claim`: who may apply a partition for a subscription, and how far it is applied."""

KNOWN_PARTITIONS = """
select count(*) as partitions, min(log_id) as log_id from headrace.claim where subscription = $1 and topic = $2
"""
"""Tells how many partitions of a topic a subscription knows, and of which log."""

HELD = """
select topic, partition, token, next_offset, sequence, emitted_through from headrace.claim
where subscription = $1 and partition = any($2::int[])
"""
"""Reads what owners of some partition numbers compare with what they know: the token, and where the claim stands."""

POSITIONS = "select topic, partition, log_id, topic_id, next_offset from headrace.claim where subscription = $1"
"""Reads which partitions a subscription knows, of which logs, and where its claims stand."""

GROUPS = "select distinct subscription from headrace.claim order by subscription"
"""Lists the subscriptions that have claims."""

PROGRESS = """
select subscription, topic, partition, owner, epoch, next_offset, committed_at from headrace.claim
where subscription = any($1::text[])
"""
"""Reads who owns the partitions of some subscriptions, and how far each is."""

ALL = """
select subscription, topic, partition, owner, next_offset, crashes, committed_at from headrace.claim
order by subscription, topic, partition
"""
"""Reads every claim of the database, for `headrace doctor`."""

ENROLL = """
insert into headrace.claim (subscription, topic, partition, epoch, token, log_id, topic_id, claimed_offset, next_offset)
select $1, $2, new.partition, 0, $3, $4, $5, new.next_offset, new.next_offset
from unnest($6::int[], $7::bigint[]) as new (partition, next_offset)
on conflict (subscription, topic, partition) do nothing
"""
"""Makes the rows of a topic that a subscription reads for the first time."""

HOLDER = """
select leaving from headrace.claim
where subscription = $1 and partition = $2 and topic = any($3::text[]) and owner <> $4
order by leaving desc limit 1
"""
"""Tells whether somebody else holds a claim of a partition number, and whether it is letting go."""

LEAVE = """
update headrace.claim set leaving = true
where subscription = $1 and partition = any($2::int[]) and topic = any($3::text[]) and owner = $4
"""
"""Notes that the owner is letting go, and will release its claims once its last transaction has ended."""

OWNER_FOR_UPDATE = """
select owner, extract(epoch from clock_timestamp() - released_at)::float8 as seconds_released
from headrace.claim where subscription = $1 and topic = $2 and partition = $3 for update
"""
"""Locks the row and tells its owner so far, or for how long it has had none."""

END_SILENT = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where datname = current_database() and usename = current_user and pid <> pg_backend_pid()
  and application_name = current_setting('application_name') and state = 'active' and wait_event = 'ClientRead'
  and xact_start is not null and current_setting('idle_in_transaction_session_timeout') <> '0'
  and state_change < clock_timestamp() - current_setting('idle_in_transaction_session_timeout')::interval
"""
"""Ends sessions that are silent in the middle of a statement within a transaction, for longer than between two.

Postgres' own limit counts between statements alone. A driver asks for a statement's description first, and then sends
the arguments: a process that is frozen in between would keep its locks for as long as it is frozen.
"""

CLAIM = """
update headrace.claim as held
set epoch = held.epoch + 1, token = $4, owner = $5, claimed_at = now(), log_id = coalesce(held.log_id, $7),
    topic_id = case when held.next_offset = 0 then $8 else coalesce(held.topic_id, $8) end,
    crashes = case when held.owner is null then 0
                   when held.owner = $5 then held.crashes
                   when held.next_offset >= $6 then 0
                   when not held.is_applying then held.crashes
                   when held.next_offset = held.claimed_offset then held.crashes + 1
                   else 1 end,
    claimed_offset = held.next_offset, is_applying = false, leaving = false, released_at = null
where subscription = $1 and topic = $2 and partition = $3
returning epoch, next_offset, sequence, emitted_through, last_offset, last_timestamp, last_crc, crashes, log_id,
    topic_id
"""
"""Takes the partition: the epoch rises, and the crashes of the owners so far are counted.

A claim at offset 0 belongs to any topic of that name: nothing of it can have been passed over.
"""

LOCK_IF_HELD = """
select 1 from headrace.claim
where subscription = $1 and topic = $2 and partition = $3 and epoch = $4 and token = $5 and next_offset = $6
  and sequence = $7
for update
"""
"""Locks the row if it is still the owner's."""

IS_HELD = """
select 1 from headrace.claim
where subscription = $1 and topic = $2 and partition = $3
  and (epoch, token) in (($4::bigint, $5::uuid), ($4::bigint + 1, $6::uuid))
"""
"""Tells whether the row is still the owner's, wherever it stands: with its token, or the next one."""

ADVANCE = """
update headrace.claim
set next_offset = $7, sequence = $8, emitted_through = $9, last_offset = $10, last_timestamp = $11, last_crc = $12,
    crashes = case when $7 > next_offset then 0 else crashes end,
    committed_at = case when $8 > sequence then now() else committed_at end
where subscription = $1 and topic = $2 and partition = $3 and epoch = $4 and token = $5 and next_offset = $6
  and sequence = $13
"""
"""Moves the row along if it is still the owner's.

`committed_at` is that of the last ledger row: to note that emits are in the log is no batch.
"""

_ROW = """
insert into headrace.ledger (subscription, topic, partition, sequence, kind, epoch, first_offset, next_offset,
                             applied, skipped, parked, dead, ids, marks, emits)
select $1, $2, $3, $8, $14::int, $4, $6, $7, $15::int, $16::int, $17::int, $18::int, $19::bytea, $20::bytea, $21::bytea
from moved
"""
"""Writes the ledger's row of a batch if its claim has moved."""

ADVANCE_WITH_ROW = "with moved as (" + ADVANCE + "returning 1)" + _ROW
"""Moves the row along and writes what the batch did into the ledger, both or neither: the last statement of a batch."""

BEGIN_APPLYING = """
update headrace.claim set is_applying = true
where subscription = $1 and topic = $2 and partition = $3 and epoch = $4 and token = $5 and next_offset = $6
  and sequence = $7
"""
"""Notes that the owner is about to run handlers, if the row is still the owner's."""

RELEASE = """
update headrace.claim set owner = null, crashes = 0, leaving = false, released_at = clock_timestamp()
where subscription = $1 and partition = $2 and topic = any($3::text[]) and owner = $4
"""
"""Removes the owner's name; harms no batch in flight."""

LAST_BATCH_FOR_UPDATE = """
select epoch, token, next_offset, sequence from headrace.claim
where subscription = $1 and topic = $2 and partition = $3 for update
"""
"""Tells which batch was the last, once no other session holds the row."""

RENEW = """
update headrace.claim set epoch = epoch + 1, token = $6
where subscription = $1 and topic = $2 and partition = $3 and epoch = $4 and token = $5
"""
"""Gives a claim that is still its owner's another token: what the owner has sent before is refused."""

SEQUENCES = "select topic, sequence from headrace.claim where subscription = $1 and partition = $2"
"""Tells the last batch of each topic's claim on a partition number."""

LAST_BATCHES = (
    "select subscription, topic, partition, sequence from headrace.claim where subscription = any($1::text[])"
)
"""Tells the last batch of each claim of some subscriptions."""

OF_TOPIC = """
select subscription, partition, next_offset, last_offset, last_timestamp, last_crc, topic_id,
       coalesce(c.log_id, t.log_id) as log_id
  from headrace.claim c left join headrace.topic t using (topic)
 where topic = $1 and partition < $2
 order by partition, subscription
"""
"""Reads the claims of a topic.

The log of a claim that was made before claims knew theirs is the one that the topic was last seen in.
"""

OF_TOPIC_FOR_UPDATE = f"{OF_TOPIC} for update of c"
"""Locks the claims of a topic as well: no batch commits while they are compared with the log."""

RESET = """
update headrace.claim
   set epoch = epoch + 1, token = gen_random_uuid(), owner = null, next_offset = $4, claimed_offset = $4,
       last_offset = null, last_timestamp = null, last_crc = null, crashes = 0, log_id = $5, topic_id = $6,
       sequence = sequence + 1, committed_at = now()
 where topic = $1 and partition = $2 and subscription = $3 returning sequence, epoch
"""
"""Moves a claim to an offset of another log; whoever owns it is fenced. A ledger row of that sequence must follow."""

SET_LOG = """
update headrace.claim set epoch = epoch + 1, token = gen_random_uuid(), owner = null, log_id = $4, topic_id = $5
 where topic = $1 and partition = $2 and subscription = $3
"""
"""Notes which log, and which topic of that name, a claim belongs to that stays where it is; whoever owns it is fenced.

What an owner remembers of a key that has moved to another partition is out of date as soon as that one applies it.
"""

ADD_PARTITION = """
insert into headrace.claim (subscription, topic, partition, epoch, token, claimed_offset, next_offset, log_id,
                            topic_id, sequence, emitted_through)
values ($3, $1, $2, 0, gen_random_uuid(), $4, $4, $5, $6, $7, $7)
"""
"""Makes the claim on a partition that was added: at its beginning, whatever the subscription's `start` is."""

LOST_FOR_UPDATE = """
select subscription, partition, emitted_through from headrace.claim
where topic = $1 and partition >= $2 order by subscription, partition for update
"""
"""Locks the claims on partitions that the topic no longer has."""

REMOVE_PARTITIONS = "delete from headrace.claim where topic = $1 and partition >= $2"
"""Removes the claims on partitions that the topic no longer has."""

OWNERS_FOR_UPDATE = "select owner from headrace.claim where subscription = $1 order by topic, partition for update"
"""Keeps the owners of a subscription from committing, and tells who they are."""

WITH_UNPUBLISHED_EMITS = """
select subscription, topic, partition from headrace.claim
where exists (
    select from headrace.{table} kept
    where kept.subscription = claim.subscription and kept.topic = claim.topic and kept.partition = claim.partition
      and kept.sequence > claim.emitted_through and kept.emits is not null
)
"""
"""Lists the claims that have emits in one `{table}` of the ledger which may not be in the log yet."""

REACHED = """
select (select count(*) from unnest($2::text[], $3::integer[], $4::bigint[]) as wanted (topic, partition, "offset")
        left join headrace.claim on claim.subscription = $1 and claim.topic = wanted.topic
             and claim.partition = wanted.partition
        where coalesce(claim.next_offset, -1) <= wanted."offset") as behind,
       (select min(parked.topic || '/' || parked.partition || '/' || parked."offset") from headrace.parked
        join unnest($2::text[], $3::integer[], $4::bigint[]) as wanted (topic, partition, "offset")
             on parked.topic = wanted.topic and parked.partition = wanted.partition
             and parked."offset" = wanted."offset"
        where parked.subscription = $1) as parked
"""
"""Tells how many positions a subscription has not come to, and one that waits in a lane."""

STAND_STILL = """
select topic, partition, next_offset from headrace.claim where subscription = $1 order by 1, 2 for update
"""
"""Keeps every partition of a subscription where it is, until the transaction ends."""

FENCE = """
update headrace.claim set epoch = epoch + 1, token = gen_random_uuid() where subscription = $1 and partition = $2
returning topic, next_offset, sequence
"""
"""Takes the token of a partition number's claims away, so that their owner claims again and reads everything anew."""

REWIND = """
update headrace.claim
   set epoch = epoch + 1, token = gen_random_uuid(), owner = null, next_offset = $4, claimed_offset = $4,
       last_offset = null, last_timestamp = null, last_crc = null, crashes = 0, is_applying = false,
       sequence = $5, committed_at = now()
 where subscription = $1 and topic = $2 and partition = $3 and next_offset = $6 and sequence = $7 returning epoch
"""
"""Moves a claim back if it still stands where it was; whoever owns it is fenced.

Ledger rows up to that sequence must follow.
"""

COUNT_PARTITIONS = "select coalesce(max(partition) + 1, 0) from headrace.claim where subscription = $1"
"""Tells how many partitions a subscription knows."""
