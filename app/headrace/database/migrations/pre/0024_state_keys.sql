-- States are looked up by the bytes of their keys. By the rules of a language, which most databases have as their default,
-- a batch of keys that are not in memory takes Postgres half as long again to read and to write.
-- The table is not written anew, but its index is; what uses a large table waits for that for some seconds.
alter table headrace.state
    alter column subscription type text collate "C",
    alter column state type text collate "C",
    alter column key type text collate "C";
