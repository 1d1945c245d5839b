"""Queries on the schema itself and on `headrace.migration`: which migrations were applied."""

HAS_MIGRATION_TABLE = """
select exists (
    select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'headrace' and c.relname = 'migration'
)
"""
"""Tells whether the table of applied migrations exists.

It asks the catalogue: to_regclass() may go by what this session knew before it waited for the lock
(test_migrators_that_start_together_apply_each_file_once).
"""

APPLIED = "select phase, number, name, checksum from headrace.migration order by phase, number"
"""Lists the migrations that were applied, the oldest first within each phase."""

HAS_SCHEMA = "select exists (select from pg_namespace where nspname = 'headrace')"
"""Tells whether the schema exists."""

CREATE_SCHEMA = "create schema headrace"
"""Creates the schema."""

CREATE_MIGRATION_TABLE = """
create table headrace.migration (
    phase       text not null,
    number      integer not null,
    name        text not null,
    checksum    text not null,
    applied_at  timestamptz not null default now(),
    primary key (phase, number)
)
"""
"""Creates the table of applied migrations."""

NOTE_APPLIED = "insert into headrace.migration (phase, number, name, checksum) values ($1, $2, $3, $4)"
"""Notes that a migration was applied."""
