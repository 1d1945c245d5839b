-- Claims, ledger, state, lanes and dead letters: all that a batch commits.

-- What the log looked like when it was last checked: a changed partition count or another cluster is refused.
create table headrace.topic (
    topic       text primary key,
    partitions  integer not null,
    log_id      text not null,
    seen_at     timestamptz not null default now()
);

-- The right to apply a partition for a subscription. A batch commits only where (epoch, token, next_offset) are still
-- what its owner knows; Kafka's own group offsets only follow this row.
create table headrace.claim (
    subscription     text not null,
    topic            text not null,
    partition        integer not null,
    epoch            bigint not null,
    token            uuid not null,
    owner            text,                          -- null: let go politely
    claimed_at       timestamptz not null default now(),
    claimed_offset   bigint not null,               -- next_offset when it was claimed
    crashes          integer not null default 0,    -- owners in a row that died at claimed_offset
    next_offset      bigint not null,
    sequence         bigint not null default 0,     -- the last ledger row
    emitted_through  bigint not null default 0,     -- emits of ledger rows up to here are in the log
    last_offset      bigint,                        -- the last record read, and its fingerprint:
    last_timestamp   bigint,                        --   milliseconds since the epoch
    last_crc         bigint,                        --   CRC-32 of key and value
    committed_at     timestamptz not null default now(),
    primary key (subscription, topic, partition)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- One row per committed batch: which offsets, which event ids, what it emitted. Old rows leave by dropping a partition.
create table headrace.ledger (
    subscription  text not null,
    topic         text not null,
    partition     integer not null,
    sequence      bigint not null,
    kind          smallint not null,                -- 0 batch of the log, 1 retry of a lane, 2 replay of dead letters
    epoch         bigint not null,
    first_offset  bigint not null,                  -- [first_offset, next_offset)
    next_offset   bigint not null,
    applied       integer not null,
    skipped       integer not null,
    parked        integer not null,
    dead          integer not null,
    ids           bytea not null,                   -- 16 bytes per event id, in offset order
    emits         bytea,                            -- MessagePack list of records, null where none
    committed_at  timestamptz not null default now(),
    primary key (subscription, topic, partition, sequence, committed_at)
) partition by range (committed_at);

alter table headrace.ledger alter column ids set storage external;
alter table headrace.ledger alter column emits set storage external;

create table headrace.ledger_default partition of headrace.ledger default;

-- A typed value per key, owned by one subscription. version counts its changes, so that a second writer is noticed.
create table headrace.state (
    subscription  text not null,
    state         text not null,                    -- lower-case name of the state's class
    key           text not null,
    partition     integer not null,                 -- where the key was last applied
    version       bigint not null,
    data          jsonb not null,
    primary key (subscription, state, key)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- The parked keys: one row per key that is held back. Keys are bytes, since text cannot hold every key.
create table headrace.lane (
    subscription  text not null,
    partition     integer not null,
    key           bytea not null,
    attempts      integer not null,                 -- runs of the head that failed, counted before each run
    due_at        timestamptz not null,
    parked_at     timestamptz not null default now(),
    error         text not null,
    primary key (subscription, partition, key)
);

-- The events of a lane, in order.
create table headrace.parked (
    subscription  text not null,
    partition     integer not null,
    key           bytea not null,
    number        bigint not null,                  -- order within the partition
    topic         text not null,
    "offset"      bigint not null,
    "timestamp"   bigint not null,                  -- milliseconds since the epoch, of the record
    record_key    bytea,
    value         bytea,
    headers       bytea not null,                   -- MessagePack list of [name, bytes]
    source        text not null,
    event_id      text not null,
    type          text not null,
    reason        text not null,                    -- handler_error, behind_key, process_killed, data_refused
    parked_at     timestamptz not null default now(),
    primary key (subscription, partition, key, number)
);

-- Events that were given up on, until a person decides.
create table headrace.dead_letter (
    id            uuid primary key default gen_random_uuid(),
    subscription  text not null,
    topic         text not null,
    partition     integer not null,
    "offset"      bigint not null,
    "timestamp"   bigint not null,
    key           bytea,                            -- the event's key where it could be read
    record_key    bytea,
    value         bytea,
    headers       bytea not null,
    source        text,
    event_id      text,
    type          text,
    reason        text not null,                    -- decode, schema, unknown_type, gave_up, asked
    error         text not null,
    handler       text,
    attempts      integer not null default 0,
    created_at    timestamptz not null default now(),
    decision      text,                             -- null open, replay, discard
    decided_at    timestamptz,
    settled_at    timestamptz                       -- replay: when the owner took it up again
);

create index dead_letter_open on headrace.dead_letter (subscription, created_at) where decision is null;
create index dead_letter_replay on headrace.dead_letter (subscription, partition)
    where decision = 'replay' and settled_at is null;

-- What an operator asked of a subscription.
create table headrace.subscription (
    subscription  text primary key,
    paused        boolean not null default false,
    changed_at    timestamptz not null default now()
);
