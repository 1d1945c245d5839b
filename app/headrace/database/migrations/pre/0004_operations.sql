-- What operators ask for: retries of lanes, and room.

-- When an operator last asked for a retry of lanes: the owners read their lanes' due times again.
alter table headrace.subscription add column retry_requested_at timestamptz;

-- Decided dead letters expire.
create index dead_letter_decided on headrace.dead_letter (decided_at) where decision is not null;

-- A list of dead letters begins with the newest, of every service.
create index dead_letter_newest on headrace.dead_letter (created_at desc, id desc);
