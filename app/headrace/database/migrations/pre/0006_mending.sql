-- Dead letters can be searched, counted by error, decided about in numbers, and edited before they are replayed.

-- The class of the error, such as KeyError.
alter table headrace.dead_letter add column error_type text;

-- What a person made of the record's value, which itself stays as it was; null: nobody edited it.
alter table headrace.dead_letter add column edited_value bytea;

-- What was done, the oldest first: [{"did": "replay", "by": "ops", "at": "...", "why": "..."}].
alter table headrace.dead_letter add column history jsonb not null default '[]';

-- Replays are taken up in the order of the log.
drop index headrace.dead_letter_replay;
create index dead_letter_replay on headrace.dead_letter (subscription, partition, topic, "offset", id)
    where decision = 'replay' and settled_at is null;

-- Many letters are decided in the order of the log; what fails again after a replay is found by its place.
create index dead_letter_place on headrace.dead_letter (subscription, partition, topic, "offset", id);

-- A hash, since the key of a foreign record may be longer than an entry of a tree.
create index dead_letter_key on headrace.dead_letter using hash (key);
