-- Effects: calls to the outside that wait, run or are tried again, and the answers of their steps.
create table headrace.effect (
    subscription  text not null,
    identity      bytea not null,                   -- of the event: its effect is started once
    partition     integer not null,                 -- whose owner makes the call
    number        bigint not null,                  -- order within the partition
    key           bytea not null,
    topic         text not null,
    "offset"      bigint not null,
    "timestamp"   bigint not null,                  -- milliseconds since the epoch, of the record
    record_key    bytea,
    value         bytea,
    headers       bytea not null,                   -- MessagePack list of [name, bytes]
    attempts      integer not null default 0,       -- runs that have failed, or that a process did not survive
    due_at        timestamptz not null default '-infinity',  -- infinity: held until an operator acts
    error         text,
    started_at    timestamptz not null default now(),
    primary key (subscription, identity)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

create index effect_order on headrace.effect (subscription, partition, number);

create table headrace.step (
    subscription  text not null,
    identity      bytea not null,
    name          text not null,
    answer        text not null,                    -- JSON
    answered_at   timestamptz not null default now(),
    primary key (subscription, identity, name)
);

create index step_age on headrace.step (answered_at);
