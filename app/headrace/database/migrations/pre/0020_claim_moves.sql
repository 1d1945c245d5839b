-- The claims that people have moved: rewound, taken along to another log, or made for a partition that was added.
create table headrace.claim_move (
    subscription  text not null,
    topic         text not null,
    partition     integer not null,
    sequence      bigint not null,                  -- of the ledger row that tells of it
    action        text not null,                    -- rewind, accept, add
    from_offset   bigint not null,                  -- [next_offset, from_offset) is applied again
    next_offset   bigint not null,
    quiet_until   bigint,                           -- effects of events before it are not started again; null: none
    first_runs    bigint[] not null default '{}',   -- but those of the events at these offsets, which never ran
    changed       jsonb not null default '{}',      -- what else it changed: {"states": 3, "dead_letters": 1, ...}
    by            text,
    why           text,
    moved_at      timestamptz not null default now(),
    primary key (subscription, topic, partition, sequence)
);
