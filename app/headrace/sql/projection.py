"""Queries on `headrace.projection`: which tables of the schema `projections` belong to which projection."""

LOCK = "select pg_advisory_xact_lock(hashtext('headrace.projection'))"
"""Lets one process at a time make or change tables."""

READ = "select name, table_name, columns::text as columns from headrace.projection where service = $1"
"""Lists the projections of a service that have a table."""

OWNER = "select service, name from headrace.projection where table_name = $1"
"""Tells whose a table is."""

WRITE = """
insert into headrace.projection (service, name, table_name, columns) values ($1, $2, $3, $4::text::jsonb)
on conflict (service, name) do update
set table_name = excluded.table_name, columns = excluded.columns, built_at = now()
"""
"""Notes what a projection's table was made with."""

TRY_REBUILD = "select pg_try_advisory_lock(hashtext('headrace.rebuild'), hashtext($1))"
"""Makes the session the only one that rebuilds a projection; false if another one does."""

END_REBUILD = "select pg_advisory_unlock(hashtext('headrace.rebuild'), hashtext($1))"
"""Lets others rebuild it."""

TELL_REBUILD = """
update headrace.projection set rebuilt_records = $3, rebuild_records = $4 where service = $1 and name = $2
"""
"""Notes how many records of how many a rebuild has applied; null before it has counted them."""

REBUILDING = """
select rebuilt_records, rebuild_records from headrace.projection
where service = $1 and name = $2 and rebuild_records > 0 and exists (
    select from pg_locks
    where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
      and classid = hashtext('headrace.rebuild')::oid and objid = hashtext($3)::oid and objsubid = 2 and granted
)
"""
"""Tells how far a rebuild is; no row if none runs, also after one that has died."""
