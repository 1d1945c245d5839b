-- Projections: read models as tables of a schema of their own, so that a team's migrations do not see them.

create schema if not exists projections;

create table headrace.projection (
    service     text not null,
    name        text not null,
    table_name  text not null unique,               -- in the schema projections
    columns     jsonb not null,                     -- what it was made with
    built_at    timestamptz not null default now(),
    primary key (service, name)
);
