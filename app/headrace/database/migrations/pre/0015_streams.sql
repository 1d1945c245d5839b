-- The event store: streams of events with versions, and the latest snapshot of an aggregate's state.

-- Where each stream stands. Who appends holds the row until its commit, so versions are committed in their order.
create table headrace.stream (
    service     text not null,
    stream      text not null,                      -- what kind of streams it belongs to: the aggregate's name
    key         text not null,
    version     bigint not null,                    -- of its last event; 0: locked once, and empty still
    changed_at  timestamptz not null,               -- never goes back, whatever the clock does
    primary key (service, stream, key)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create table headrace.stream_event (
    service         text not null,
    stream          text not null,
    key             text not null,
    version         bigint not null,                -- 1, 2, 3 ... without gaps
    type            text not null,
    schema_version  integer not null,               -- of the type, when the event was written
    data            jsonb not null,
    appended_at     timestamptz not null,           -- grows with the version
    correlation_id  text,
    causation_id    text,
    primary key (service, stream, key, version)
);

create table headrace.snapshot (
    service   text not null,
    stream    text not null,
    key       text not null,
    version   bigint not null,                      -- of the last event that is in it
    revision  text not null,                        -- names the code that made it; another one's is not read
    state     jsonb not null,
    primary key (service, stream, key)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
