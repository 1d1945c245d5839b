-- The outbox: events that were written in a transaction of the service's own, until a relay has published them.

create sequence headrace.outbox_number;

-- One row per event. Rows leave as soon as the log has them, so the table is empty when nothing waits.
create table headrace.outbox (
    service    text not null,
    slot       smallint not null,                   -- the relay that publishes it: bucket modulo 64
    number     bigint not null,                     -- the order within the key: numbers are given in commit order
    bucket     smallint not null,                   -- the key's hash modulo 1,024
    id         uuid not null,                       -- names the row, not the event
    topic      text not null,
    key        bytea,
    value      bytea,
    headers    bytea not null,                      -- MessagePack list of [name, bytes]
    queued_at  timestamptz not null default clock_timestamp(),
    primary key (service, slot, number)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

alter table headrace.outbox alter column value set storage external;
alter table headrace.outbox alter column headers set storage external;

-- A transaction that has written an event keeps the key's bucket until it ends, and only then is the number of the next
-- one taken. So whoever commits later has the higher number, within a key, whatever the isolation level is.
create function headrace.number_outbox() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(hashtext('headrace.outbox.key/' || new.service), new.bucket);
    new.number := nextval('headrace.outbox_number');
    new.slot := new.bucket % 64;
    return new;
end
$$;

create trigger number_outbox before insert on headrace.outbox
    for each row execute function headrace.number_outbox();
