-- Who rewinds a subscription, and since when: a rewind that was killed leaves it paused, and this tells why.
alter table headrace.subscription add column rewind_by text;
alter table headrace.subscription add column rewind_began_at timestamptz;
