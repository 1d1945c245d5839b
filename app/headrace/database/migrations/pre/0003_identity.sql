-- One identity and one owner: what a known event id carried, and which log and database a claim belongs to.

-- For the ids of a row, in their order: all offsets (8 bytes each), then the CRC-32 of all data (4 bytes each),
-- little-endian. An identity that comes again with other data is a conflict, and both positions are named.
alter table headrace.ledger add column marks bytea;
alter table headrace.ledger alter column marks set storage external;

-- The cluster (or embedded database) that the claim's offsets belong to; null: not compared yet.
alter table headrace.claim add column log_id text;

-- True once its owner has begun to run handlers: only then may an event have ended the owner's process.
alter table headrace.claim add column is_applying boolean not null default false;

-- True from the start of a lane's run until its commit: an owner that dies in between has used up an attempt, an
-- outage has not.
alter table headrace.lane add column is_running boolean not null default false;

-- Names this database to the members of a consumer group, so that two databases never share one.
create table headrace.installation (
    id          uuid primary key default gen_random_uuid(),
    created_at  timestamptz not null default now()
);
insert into headrace.installation default values;
