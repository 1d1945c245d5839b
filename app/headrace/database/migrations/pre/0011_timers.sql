-- Timers: events that a handler has emitted for later. One row for each, until its time comes or it is cancelled.
create table headrace.timer (
    subscription  text not null,
    type          text not null,                    -- of the event
    key           bytea not null,                   -- of the event: bytes, since text cannot hold every key
    name          text not null,                    -- given by the handler, else the event's id
    partition     integer not null,                 -- whose owner fires it: where it was set last
    due_at        timestamptz not null,             -- by the clock of Postgres
    topic         text not null,
    value         bytea,
    headers       bytea not null,                   -- MessagePack list of [name, bytes]
    set_at        timestamptz not null default now(),
    primary key (subscription, type, key, name)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

create index timer_due on headrace.timer (subscription, partition, due_at);
