-- Handlers that meet an outage, as each process sees it: it writes its rows, and removes them when the outage is over.
-- A row of a process that owns no claim any more tells nothing.
create table headrace.outage (
    subscription  text not null,
    owner         text not null,
    handler       text not null,
    error         text not null,
    since         timestamptz not null,
    primary key (subscription, owner)
);
