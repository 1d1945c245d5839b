"""A model of Kafka: partitions with transactions and holes, readers, and groups whose members come and go."""
