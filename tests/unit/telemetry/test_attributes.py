"""The names of attributes are the standard's, and stand in one file."""

from __future__ import annotations

import ast
from pathlib import Path

import headrace
from headrace.telemetry import attributes

NAMES = {
    "SYSTEM": "messaging.system",
    "OPERATION_NAME": "messaging.operation.name",
    "OPERATION_TYPE": "messaging.operation.type",
    "DESTINATION": "messaging.destination.name",
    "PARTITION": "messaging.destination.partition.id",
    "CONSUMER_GROUP": "messaging.consumer.group.name",
    "MESSAGE_COUNT": "messaging.batch.message_count",
    "MESSAGE_ID": "messaging.message.id",
    "CONVERSATION_ID": "messaging.message.conversation_id",
    "OFFSET": "messaging.kafka.offset",
    "SERVER_ADDRESS": "server.address",
    "EVENT_ID": "cloudevents.event_id",
    "EVENT_SOURCE": "cloudevents.event_source",
    "EVENT_TYPE": "cloudevents.event_type",
    "EVENT_SUBJECT": "cloudevents.event_subject",
    "HTTP_METHOD": "http.request.method",
    "HTTP_ROUTE": "http.route",
    "DATABASE": "db.system.name",
    "ERROR_TYPE": "error.type",
    "ACCEPTED": "headrace.events.accepted",
    "SUBSCRIPTION": "headrace.subscription",
    "EPOCH": "headrace.epoch",
    "FIRST_OFFSET": "headrace.batch.first_offset",
    "LAST_OFFSET": "headrace.batch.last_offset",
    "APPLIED": "headrace.batch.applied",
    "SKIPPED": "headrace.batch.skipped",
    "PARKED": "headrace.batch.parked",
    "ROWS": "headrace.batch.rows",
    "LINKS_DROPPED": "headrace.links.dropped",
    "CALLS_DROPPED": "headrace.calls.dropped",
    "OUTCOME": "headrace.outcome",
    "HANDLER": "headrace.handler",
    "CAUSATION_ID": "headrace.causation_id",
    "WAITED_SECONDS": "headrace.waited_seconds",
    "ATTEMPT": "headrace.attempt",
    "PARTITIONS": "headrace.partitions",
    "STANDSTILL_SECONDS": "headrace.standstill_seconds",
}


def test_attribute_names_are_pinned() -> None:
    assert {name: value for name, value in vars(attributes).items() if name.isupper()} == NAMES


def test_no_other_file_spells_an_attribute_name() -> None:
    package = Path(headrace.__file__).parent
    for file in sorted(package.rglob("*.py")):
        if file.name == "attributes.py" and file.parent.name == "telemetry":
            continue
        texts = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
        assert not texts & set(NAMES.values()), file
