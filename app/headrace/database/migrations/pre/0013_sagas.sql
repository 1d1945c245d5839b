-- The sagas: where each one stands, beside its state, so that open and ended ones are found and counted.
create table headrace.saga (
    subscription  text not null,
    key           text not null,
    partition     integer not null,
    status        text not null,                    -- running, compensating, completed, compensated, timed_out
    step          text,                             -- what it waits for; null when it has ended
    reason        text,                             -- why it is compensated
    started_at    timestamptz not null default now(),
    changed_at    timestamptz not null default now(),
    ended_at      timestamptz,
    primary key (subscription, key)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create index saga_open on headrace.saga (subscription, started_at) where ended_at is null;
