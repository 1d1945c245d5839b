-- A timer of a schedule: when it fires, its owner sets the next one.
alter table headrace.timer add column cron text;    -- what the schedule's event, times and zone are; null: no schedule
