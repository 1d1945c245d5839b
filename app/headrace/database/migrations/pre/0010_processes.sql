-- The processes that live, and what their code knows of the schema: `post` migrations wait for older ones to end.

create table headrace.process (
    name      text primary key,                     -- as claims name their owner
    role      text not null,
    version   text not null,                        -- of Headrace
    post      integer not null,                     -- the last `post` migration that its code knows
    seen_at   timestamptz not null default now()
) with (fillfactor = 50);
