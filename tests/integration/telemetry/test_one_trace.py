"""One trace from the HTTP request through Kafka and the batch to the event that a handler emitted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace import Emit, Event, Headrace
from headrace.log.memory import MemoryLog
from tests.support.kafka import KafkaServer
from tests.support.platform import running, settings_for
from tests.support.waiting import until

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """The application's own tracer provider: set once a process, so it is shared and cleared."""
    exporter = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    yield exporter
    processor.shutdown()


async def test_one_trace_leads_from_the_request_to_the_emitted_event(
    kafka: KafkaServer, database_url: str, topic_name: str, exporter: InMemorySpanExporter, tmp_path: Path
) -> None:
    """The way leads through Kafka and the batch."""
    platform = Headrace("traced", settings_for(database_url, kafka.url, partitions=1))
    seen: list[str] = []

    class Asked(Event, type="asked", topic=topic_name, key="name"):
        name: str

    class Answered(Event, type="answered", topic=f"{topic_name}-answers", key="name"):
        name: str

    asked = platform.subscription(f"asked-{topic_name[-8:]}")
    answered = platform.subscription(f"answered-{topic_name[-8:]}")

    @asked.on(Asked)
    def answer(event: Asked) -> Answered:
        return Answered(name=event.name)

    @answered.on(Answered)
    def hear(event: Answered) -> None:
        seen.append(event.name)

    app = FastAPI(lifespan=platform.lifespan)
    app.include_router(platform.router)
    async with platform.lifespan(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            response = await client.post(
                "/events/asked", json={"name": "ada"}, headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            )
        assert response.status_code == 202
        await until(lambda: seen == ["ada"], "the answer was heard")
        await until(lambda: len(_processed(exporter)) >= 2, "both batches are recorded")

    spans = {span.name: span for span in exporter.get_finished_spans() if not span.name.startswith("process ")}
    request = spans["POST /events/{type}"]
    assert _trace_of(request) == TRACE
    assert _trace_of(spans[f"send {topic_name}"]) == TRACE
    first, second = (_processed_on(exporter, name) for name in (topic_name, f"{topic_name}-answers"))
    assert [format(link.context.trace_id, "032x") for link in first.links] == [TRACE]
    assert [format(link.context.trace_id, "032x") for link in second.links] == [TRACE]
    emitted = spans[f"send {topic_name}-answers"]
    assert emitted.parent is not None
    assert emitted.parent.span_id == first.context.span_id
    assert [format(link.context.trace_id, "032x") for link in emitted.links] == [TRACE]
    assert {"commit " + topic_name, "handle " + answer.__qualname__.rpartition("<locals>.")[2]} <= spans.keys()


async def test_one_trace_leads_from_a_route_through_the_outbox(
    database_url: str, topic_name: str, exporter: InMemorySpanExporter
) -> None:
    """The route's span is the parent of what the relay sends, and the event's handler links to it."""
    platform = Headrace("traced", settings_for(database_url, partitions=1))
    seen: list[str] = []

    class Asked(Event, type="asked", topic=topic_name, key="name"):
        name: str

    @platform.subscription("asked").on(Asked)
    def hear(event: Asked) -> None:
        seen.append(event.name)

    async with running(platform, MemoryLog()):
        with trace.get_tracer("routes").start_as_current_span("POST /questions") as route:
            async with platform.transaction() as tx:
                tx.emit(Asked(name="ada"))
        await until(lambda: seen == ["ada"], "ada was heard")  # the relay's time is its own
        with trace.get_tracer("routes").start_as_current_span("POST /questions"):
            await platform.publish(Asked(name="bob"))
        await until(lambda: seen == ["ada", "bob"], "both were heard")
        await until(lambda: len(_sent(exporter, topic_name)) == 2, "both were sent")
    relayed, published = _sent(exporter, topic_name)
    assert relayed.parent is not None and published.parent is not None
    assert relayed.parent.span_id == route.get_span_context().span_id
    assert _trace_of(published) != _trace_of(relayed)
    linked = [format(link.context.trace_id, "032x") for span in _processed(exporter) for link in span.links]
    assert {_trace_of(relayed), _trace_of(published)} <= set(linked)


async def test_one_trace_leads_to_a_timer_that_fires(
    database_url: str, topic_name: str, exporter: InMemorySpanExporter
) -> None:
    """Hours may lie between the event and its timer, so the timer's span links to the trace."""
    platform = Headrace("traced", settings_for(database_url, partitions=1))
    heard: list[str] = []

    class Asked(Event, type="asked", topic=topic_name, key="name"):
        name: str

    class Reminded(Event, type="reminded", topic=f"{topic_name}-reminders", key="name"):
        name: str

    @platform.subscription("asked").on(Asked)
    def remind(event: Asked, emit: Emit) -> None:
        emit(Reminded(name=event.name), after=0.01)

    @platform.subscription("reminded").on(Reminded)
    def hear(event: Reminded) -> None:
        heard.append(event.name)

    async with running(platform, MemoryLog()):
        with trace.get_tracer("routes").start_as_current_span("POST /questions") as route:
            await platform.publish(Asked(name="ada"))
        await until(lambda: heard == ["ada"], "the timer has fired")
        await until(lambda: len(_named(exporter, f"timer {topic_name}-reminders")) == 1, "it is recorded")
    (fired,) = _named(exporter, f"timer {topic_name}-reminders")
    assert [link.context.trace_id for link in fired.links] == [route.get_span_context().trace_id]
    assert fired.attributes is not None
    waited = fired.attributes["headrace.waited_seconds"]
    assert isinstance(waited, float) and waited >= 0.0


async def test_one_trace_leads_to_each_call_of_an_effect(
    database_url: str, topic_name: str, exporter: InMemorySpanExporter
) -> None:
    """Both runs link to the route's trace, and what the effect does outside is a part of its run."""
    platform = Headrace("traced", settings_for(database_url, partitions=1, retry_first_seconds=0.01))
    runs: list[int] = []

    class Asked(Event, type="asked", topic=topic_name, key="name"):
        name: str

    @platform.subscription("asked").effect(Asked)
    async def call_ada(event: Asked) -> None:
        runs.append(len(runs))
        with trace.get_tracer("client").start_as_current_span("GET /ada"):
            if len(runs) == 1:
                raise ConnectionError("nobody is there")

    async with running(platform, MemoryLog()):
        with trace.get_tracer("routes").start_as_current_span("POST /questions") as route:
            await platform.publish(Asked(name="ada"))
        await until(lambda: len(_named(exporter, "effect call_ada")) == 2, "both runs are recorded")
    first, second = _named(exporter, "effect call_ada")
    for number, run in enumerate((first, second), 1):
        assert [link.context.trace_id for link in run.links] == [route.get_span_context().trace_id]
        assert run.attributes is not None and run.attributes["headrace.attempt"] == number
    assert first.attributes is not None and first.attributes["error.type"] == "ConnectionError"
    outside = _named(exporter, "GET /ada")
    assert [each.parent and each.parent.span_id for each in outside] == [
        each.context.span_id for each in (first, second)
    ]


def _sent(exporter: InMemorySpanExporter, topic: str) -> list[ReadableSpan]:
    return _named(exporter, f"send {topic}")


def _named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    spans = [span for span in exporter.get_finished_spans() if span.name == name]
    return sorted(spans, key=lambda span: span.start_time or 0)


def _processed(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name.startswith("process ")]


def _processed_on(exporter: InMemorySpanExporter, topic: str) -> ReadableSpan:
    return next(span for span in _processed(exporter) if span.name == f"process {topic}")


def _trace_of(span: ReadableSpan) -> str:
    return format(span.context.trace_id, "032x")
