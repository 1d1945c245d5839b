"""Reads records that other teams wrote with a schema registry's serializers: Avro, Protobuf and JSON Schema.

```
decoder.py: a record ─▶ framing.py: which schema ─▶ schemas.py: its reader ─▶ (name, value) ─▶ the event type
                                                        │ not known yet
                     engine/decode.py: `decoded` ◀──────┘ SchemaNotFetchedError: the attempt ends
                            └─▶ schemas.py: fetch ─▶ client.py ─▶ readers.py (avro.py, protobuf.py) ─▶ decode again
```
**Nothing is fetched while events are decoded.** A batch that meets a schema for the first time ends its attempt before
anything was done, the schemas are fetched once for all partitions of the process, and the batch is decoded again. What
is known stays: a registry never changes what an id stands for.

**The writer's schema reads the bytes, the event type checks the data.** The value goes through JSON, so that the same
rules hold as for an event that comes over HTTP. A newer writer's fields are ignored, an older writer's are missing, as
the class says.

**A registry that is away is nobody's fault**: the partition waits, as it does for Postgres (`SchemaRegistryError`), and
`GET /subscriptions` says so. A registry that answers, and lacks a schema, may be behind: the partition waits for as
long as the settings say, once in ten times as long; then the record is a dead letter. So wrong bytes, which look like
any number, cost no more than that.

Rejected: the descriptor that some registries serve of a Protobuf schema (others do not, or not for a file of another
name, and the text is everywhere); a parser of our own (protoc is the definition); confluent-kafka's client (a second
client of Kafka and an HTTP client of its own, for two routes); names of subjects as the key (they depend on the
producers' naming strategy, the record's name does not).

Needs `headrace[registry]`; without a decoder that has `schemas=`, none of it is imported.
"""
