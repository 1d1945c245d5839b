"""Hands checked records to the log: timed, and with an answer for each way it can fail."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.errors import ConfigurationError, RecordTooLargeError, TransportError
from headrace.http.problems import too_large, unavailable
from headrace.ingest.limiter import Place
from headrace.log.ports import NewRecord, Position
from headrace.telemetry.logging import get_logger
from headrace.telemetry.trace_context import exemplar

if TYPE_CHECKING:
    from headrace.log.ports import Log
    from headrace.runtime import Runtime

logger = get_logger("headrace.ingest")

AGAIN = "publishing the same event ids again is safe, since duplicates are recognised"


def connected_log(runtime: Runtime) -> Log:
    """Return the log. Raises: Problem 503 (not connected, draining)."""
    if runtime.is_draining:
        raise unavailable(f"this process is stopping; send the request again to another one: {AGAIN}.", 1)
    if runtime.log is None:
        raise unavailable(f"the log is not connected yet; nothing was accepted, send the request again: {AGAIN}.")
    return runtime.log


async def publish(
    runtime: Runtime, log: Log, records: Sequence[NewRecord], traceparent: str | None, place: Place
) -> list[Position]:
    """Return the positions once the log has every record. Raises: Problem 413, 503.

    Cancel: safe; the publish continues, and the request's place stays taken until it ends.
    """
    publishing = place.publishing = asyncio.ensure_future(log.publish(records))
    _measure(runtime, publishing, Counter(record.topic for record in records), traceparent)
    timeout = runtime.settings.ingest.timeout_seconds
    done, _ = await asyncio.wait((publishing,), timeout=timeout)
    if not done:
        raise unavailable(
            f"the log did not acknowledge within {timeout:g} s, so whether it has the events is unknown; {AGAIN}."
        )
    return _outcome(publishing)


def _measure(
    runtime: Runtime, publishing: asyncio.Future[list[Position]], topics: Counter[str], traceparent: str | None
) -> None:
    """Count the records as in flight, and measure the publish once it ends."""
    metrics, started = runtime.metrics, time.perf_counter()
    for topic, count in topics.items():
        metrics.log_produce_in_flight.labels(topic=topic).inc(count)

    def finished(task: asyncio.Future[list[Position]]) -> None:
        failed = task.cancelled() or task.exception() is not None
        outcome, seconds = "failed" if failed else "acknowledged", time.perf_counter() - started
        for topic, count in topics.items():
            metrics.log_produce_in_flight.labels(topic=topic).dec(count)
            duration = metrics.log_produce_duration_seconds.labels(topic=topic, outcome=outcome)
            duration.observe(seconds, exemplar(traceparent))

    publishing.add_done_callback(finished)


def _outcome(publishing: asyncio.Future[list[Position]]) -> list[Position]:
    try:
        return publishing.result()
    except RecordTooLargeError as error:
        raise too_large(str(error)) from error
    except TransportError as error:
        logger.warning("publish failed", error=str(error))
        raise unavailable(f"the log is away, so whether it has the events is unknown; {AGAIN}.") from error
    except ConfigurationError as error:
        logger.error("publish refused", error=str(error))
        raise unavailable(f"the log refuses the events until an operator mends it: {error}", 30) from error
