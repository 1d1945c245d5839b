"""Waits until the log has a request's events, with an answer for each way that can fail."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from headrace.errors import ConfigurationError, RecordTooLargeError, TransportError
from headrace.http.problems import too_large, unavailable
from headrace.log.ports import Position
from headrace.publishing.sending import AGAIN, NotAcknowledgedError
from headrace.telemetry.logging import get_logger

if TYPE_CHECKING:
    from headrace.log.ports import Log
    from headrace.runtime import Runtime

logger = get_logger("headrace.ingest")


def connected_log(runtime: Runtime) -> Log:
    """Return the log. Raises: Problem 503 (not connected, draining)."""
    if runtime.is_draining:
        raise unavailable(f"this process is stopping; send the request again to another one: {AGAIN}.", 1)
    if runtime.log is None:
        raise unavailable(f"the log is not connected yet; nothing was accepted, send the request again: {AGAIN}.")
    return runtime.log


async def published(sending: Awaitable[list[Position]]) -> list[Position]:
    """Return what `send` does: the positions, once the log has every event. Raises: Problem 413, 503.

    Cancel: safe; the publish continues, and the place that was given to `send` stays taken until it ends.
    """
    try:
        return await sending
    except NotAcknowledgedError as error:
        raise unavailable(str(error)) from None
    except RecordTooLargeError as error:
        raise too_large(str(error)) from error
    except TransportError as error:
        logger.warning("publish failed", error=str(error))
        raise unavailable(f"the log is away, so whether it has the events is unknown; {AGAIN}.") from error
    except ConfigurationError as error:
        logger.error("publish refused", error=str(error))
        raise unavailable(f"the log refuses the events until an operator mends it: {error}", 30) from error
