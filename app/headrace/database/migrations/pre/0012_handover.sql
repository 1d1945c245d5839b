-- A partition moves without a batch being lost: the next owner waits for one that is letting go.

-- True while the owner finishes its last transaction; a claim ends it.
alter table headrace.claim add column leaving boolean not null default false;

-- When the claim was last let go politely, to tell how long its partition stood still.
alter table headrace.claim add column released_at timestamptz;
