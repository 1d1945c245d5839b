-- When a state expires, and the version of the class that wrote it.
alter table headrace.state add column expires_at timestamptz;
alter table headrace.state add column class_version integer not null default 1;

create index state_expires on headrace.state (expires_at) where expires_at is not null;
