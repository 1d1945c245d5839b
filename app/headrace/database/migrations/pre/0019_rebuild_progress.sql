-- How far the rebuild of a projection is, so that the processes that serve it can show it. Null unless one has begun.

alter table headrace.projection
    add column rebuilt_records bigint,
    add column rebuild_records bigint;
