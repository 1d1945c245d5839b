-- What a `pre` migration may do: add something that the old release does not know.
alter table headrace.subscription add column cluster_test text;
