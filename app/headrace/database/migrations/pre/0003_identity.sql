-- One identity and one owner: what a known event id carried, and which log a claim was made on.

-- Per id of `ids`, in the same order: 8 bytes offset and 4 bytes CRC-32 of its data, little-endian. An id that comes
-- again with other data is a conflict, and both positions are named.
alter table headrace.ledger add column marks bytea;
alter table headrace.ledger alter column marks set storage external;

-- The cluster (or embedded database) that the claim's offsets belong to; null: not compared yet.
alter table headrace.claim add column log_id text;
