"""Hands checked events to the log: timed, counted, with a span per topic, and an end to the waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from headrace.envelope import Envelope
from headrace.errors import TransportError
from headrace.event import EventType
from headrace.log.ports import Log, Position
from headrace.publishing.checking import CheckedEvent
from headrace.settings import Settings
from headrace.telemetry.metrics import Metrics, child
from headrace.telemetry.trace_context import exemplar
from headrace.telemetry.tracing import Tracing
from headrace.waiting import has_ended

AGAIN = "publishing the same event ids again is safe, since duplicates are recognised"


class NotAcknowledgedError(TransportError):
    """The log did not answer in time; the publish continues."""


class Instruments(Protocol):
    """What sending is measured and bounded by: a running platform, or a client without a server."""

    @property
    def settings(self) -> Settings: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def tracing(self) -> Tracing: ...


async def send(
    tools: Instruments,
    log: Log,
    events: Sequence[CheckedEvent],
    traceparent: str | None,
    begun: Callable[[asyncio.Future[Any]], None] = lambda publishing: None,
) -> list[Position]:
    """Return the positions once the log has every event; `begun` gets the publish itself, which may last longer.

    Cancel: safe; the publish continues. Raises: TransportError, RecordTooLargeError, ConfigurationError.
    """
    types, topics = _counted(events), dict[str, int]()
    for event_type, count in types.items():
        topics[event_type.topic] = topics.get(event_type.topic, 0) + count
    with ExitStack() as spans:
        for topic, count in topics.items():
            span = spans.enter_context(tools.tracing.send(topic, count, _of_topic(topic, events)))
        publishing = asyncio.get_running_loop().create_task(log.publish([event.record for event in events]))
        del events  # their room in the processor's caches is worth more to others, while this one waits
        begun(publishing)
        _measure(tools.metrics, publishing, topics, traceparent)
        timeout = tools.settings.ingest.timeout_seconds
        if not await has_ended(publishing, timeout):
            raise NotAcknowledgedError(
                f"the log did not acknowledge within {timeout:g} s, so whether it has the events is unknown; {AGAIN}."
            )
        positions = publishing.result()
        if len(positions) == 1:
            span.published(positions[0].partition, positions[0].offset)
    for event_type, count in types.items():
        child(tools.metrics.ingest_accepted_total, topic=event_type.topic, type=event_type.type).inc(count)
    return positions


def _counted(events: Iterable[CheckedEvent]) -> dict[EventType, int]:
    """Return how many events there are of each type. For one event a Counter would take five times as long."""
    types: dict[EventType, int] = {}
    for event in events:
        types[event.event_type] = types.get(event.event_type, 0) + 1
    return types


def _of_topic(topic: str, events: Iterable[CheckedEvent]) -> Iterator[Envelope]:
    return (event.envelope for event in events if event.event_type.topic == topic)


def _measure(
    metrics: Metrics, publishing: asyncio.Future[list[Position]], topics: Mapping[str, int], traceparent: str | None
) -> None:
    """Count the records as in flight, and measure the publish once it ends."""
    started = time.perf_counter()
    for topic, count in topics.items():
        child(metrics.log_produce_in_flight, topic=topic).inc(count)

    def finished(task: asyncio.Future[list[Position]]) -> None:
        failed = task.cancelled() or task.exception() is not None
        outcome, seconds = "failed" if failed else "acknowledged", time.perf_counter() - started
        for topic, count in topics.items():
            child(metrics.log_produce_in_flight, topic=topic).dec(count)
            duration = child(metrics.log_produce_duration_seconds, topic=topic, outcome=outcome)
            duration.observe(seconds, exemplar(traceparent))

    publishing.add_done_callback(finished)
