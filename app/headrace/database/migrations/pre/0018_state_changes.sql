-- What people have done to states by hand.
create table headrace.state_change (
    id            bigint generated always as identity primary key,
    subscription  text not null,
    state         text not null,
    key           text not null,
    action        text not null,                    -- put, delete
    before        jsonb,                            -- null: there was none
    after         jsonb,
    by            text not null,
    why           text,
    changed_at    timestamptz not null default now()
);

create index state_change_key on headrace.state_change (subscription, state, key, changed_at);
