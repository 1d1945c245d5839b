-- What the server itself notes of a run: each change of a claim, in its log each statement that changed none, attempts
-- of a lane that are counted more than once, and attempts of a call that are counted though it has not failed.
create schema crash;
create table crash.claim_change (
    id bigint generated always as identity,
    xact xid8 not null default pg_current_xact_id(),
    at timestamptz not null default clock_timestamp(),
    address text default host(inet_client_addr()),
    subscription text, topic text, partition integer, owner text, epoch bigint, token uuid, next_offset bigint,
    sequence bigint
);
create function crash.note_claims() returns trigger language plpgsql as $$
begin
    insert into crash.claim_change (subscription, topic, partition, owner, epoch, token, next_offset, sequence)
    select subscription, topic, partition, owner, epoch, token, next_offset, sequence from changed;
    if not found then
        raise log 'crash: no claim changed by %', regexp_replace(current_query(), '\s+', ' ', 'g');
    end if;
    return null;
end $$;
create trigger noted after update on headrace.claim referencing new table as changed
for each statement execute function crash.note_claims();
create table crash.lane_jump (subscription text, key bytea, before integer, after integer);
create function crash.note_jump() returns trigger language plpgsql as $$
begin
    insert into crash.lane_jump values (new.subscription, new.key, old.attempts, new.attempts);
    return null;
end $$;
create trigger jumped after update on headrace.lane
for each row when (new.attempts > old.attempts + 1) execute function crash.note_jump();
create table crash.counted_death (
    xact xid8 not null default pg_current_xact_id(), address text default host(inet_client_addr()),
    subscription text, partition integer
);
create function crash.note_death() returns trigger language plpgsql as $$
begin
    insert into crash.counted_death (subscription, partition) values (new.subscription, new.partition);
    return null;
end $$;
create trigger counted after update on headrace.effect for each row
when (new.attempts > old.attempts and new.due_at = old.due_at and new.error is not distinct from old.error)
execute function crash.note_death();
