-- What the last audit of a subscription found, so that every process shows it.

-- When a process last began one: the others wait for their turn.
alter table headrace.subscription add column audit_begun_at timestamptz;

-- The time of the last snapshot that was audited to its end, and its report.
alter table headrace.subscription add column audited_at timestamptz;
alter table headrace.subscription add column audit jsonb;
