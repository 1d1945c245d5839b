-- The embedded log: topics, their partitions' next offsets, and the records.

create table headrace.log_topic (
    topic       text primary key,
    partitions  integer not null,
    created_at  timestamptz not null default now()
);

create table headrace.log_partition (
    topic        text not null references headrace.log_topic,
    partition    integer not null,
    next_offset  bigint not null default 0,
    primary key (topic, partition)
) with (fillfactor = 50);

create table headrace.log_record (
    topic        text not null,
    partition    integer not null,
    "offset"     bigint not null,
    "timestamp"  bigint not null,                   -- milliseconds since the epoch
    key          bytea,
    value        bytea,
    headers      bytea not null,                    -- MessagePack list of [name, bytes]
    primary key (topic, partition, "offset")
);
