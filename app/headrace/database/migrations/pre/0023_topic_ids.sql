-- The id that Kafka gave the topic that a claim's offsets belong to: one that is created again has another.
-- Null: not compared yet, or the log gives topics no ids.
alter table headrace.claim add column topic_id text;
