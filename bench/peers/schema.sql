-- What a consumer without Headrace keeps: the wallets, and the ids of the events that it has seen.

create table wallet (
    customer  text primary key,
    balance   bigint not null default 0,
    credits   bigint not null default 0,
    debits    bigint not null default 0,
    applied   bigint not null default 0
) with (fillfactor = 70);

create table inbox (
    event_id  text primary key,
    seen_at   timestamptz not null default now()
);
