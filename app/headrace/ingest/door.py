"""The way from checked records to the log: bounded, timed, and with an answer for each way it can fail."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.errors import ConfigurationError, RecordTooLargeError, TransportError
from headrace.ingest.body import too_large
from headrace.log.ports import NewRecord, Position
from headrace.problems import Problem, unavailable
from headrace.telemetry.logging import get_logger
from headrace.telemetry.trace_context import exemplar

if TYPE_CHECKING:
    from headrace.log.ports import Log
    from headrace.runtime import Runtime

logger = get_logger("headrace.ingest")

AGAIN = "publishing the same event ids again is safe, since duplicates are recognised"


class Door:
    """Publishes the records of requests; knows how many requests wait for the log."""

    def __init__(self) -> None:
        self._in_flight = 0

    def check(self, runtime: Runtime) -> Log:
        """Return the log. Raises: Problem 503 (not connected, draining), 429 (too many requests wait)."""
        if runtime.is_draining:
            raise unavailable(f"this process is stopping; send the request again to another one: {AGAIN}.", 1)
        if runtime.log is None:
            raise unavailable(f"the log is not connected yet; nothing was accepted, send the request again: {AGAIN}.")
        if self._in_flight >= runtime.settings.ingest.max_in_flight:
            raise Problem(
                429,
                "rate-limited",
                "Too many requests",
                f"{self._in_flight} requests wait for the log (HEADRACE_INGEST_MAX_IN_FLIGHT); nothing was accepted.",
                headers={"Retry-After": "1"},
            )
        return runtime.log

    async def publish(self, runtime: Runtime, records: Sequence[NewRecord], traceparent: str | None) -> list[Position]:
        """Return the positions once the log has every record. Raises: Problem 413, 429, 503."""
        log = self.check(runtime)
        topics = Counter(record.topic for record in records)
        self._in_flight += 1
        publishing = asyncio.ensure_future(log.publish(records))
        for topic, count in topics.items():
            runtime.metrics.log_produce_in_flight.labels(topic=topic).inc(count)
        started = time.perf_counter()

        def finished(task: asyncio.Future[list[Position]]) -> None:
            self._in_flight -= 1
            failed = task.cancelled() or task.exception() is not None
            outcome, seconds = "failed" if failed else "acknowledged", time.perf_counter() - started
            for topic, count in topics.items():
                runtime.metrics.log_produce_in_flight.labels(topic=topic).dec(count)
                runtime.metrics.log_produce_duration_seconds.labels(topic=topic, outcome=outcome).observe(
                    seconds, exemplar(traceparent)
                )

        publishing.add_done_callback(finished)
        timeout = runtime.settings.ingest.timeout_seconds
        done, _ = await asyncio.wait((publishing,), timeout=timeout)
        if not done:
            raise unavailable(
                f"the log did not acknowledge within {timeout:g} s, so whether it has the events is unknown; {AGAIN}."
            )
        return _outcome(publishing)


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
