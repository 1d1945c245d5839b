-- Lanes can be found, and retried, by the handler that failed and the class of its error. An endless due_at holds a key
-- until an operator acts.
alter table headrace.lane add column handler text;
alter table headrace.lane add column error_type text;
