"""Gives a publisher to a FastAPI route, and answers what the route does not catch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from headrace.errors import (
    EventError,
    RecordTooLargeError,
    StateUnavailableError,
    TransportError,
    VersionConflictError,
)
from headrace.http.problems import Problem, too_large, unavailable
from headrace.publishing.publisher import EventPublisher
from headrace.publishing.sending import AGAIN

if TYPE_CHECKING:
    from headrace.platform import Headrace


def platform_of(connection: HTTPConnection) -> Headrace:
    """Return the platform of a route's application. Raises: Problem 503 (it does not run)."""
    platform = cast("Headrace | None", getattr(connection.app.state, "headrace", None))
    if platform is None or platform.runtime is None:
        raise unavailable("the platform does not run; give FastAPI its lifespan: FastAPI(lifespan=events.lifespan).")
    return platform


@contextmanager
def answered() -> Iterator[None]:
    """Turn what publishing raises, and the route does not catch, into the answer that the HTTP door would give."""
    try:
        yield
    except RecordTooLargeError as error:
        raise too_large(str(error)) from error
    except EventError as error:
        raise Problem(422, "schema", "Data do not fit the event type", str(error)) from error
    except TransportError as error:
        raise unavailable(f"{str(error).rstrip('.')}; {AGAIN}.") from error
    except VersionConflictError as error:
        raise Problem(409, "conflict", "Another writer was faster", str(error)) from error
    except StateUnavailableError as error:
        raise unavailable(str(error)) from error


async def route_publisher(connection: HTTPConnection) -> AsyncIterator[EventPublisher]:
    """Yield the publisher of the route's application."""
    with answered():
        yield platform_of(connection).publisher


Publisher = Annotated[EventPublisher, Depends(route_publisher)]
"""`async def place(order: Order, publisher: Publisher)`: what publishing raises and the route lets through is answered
as by `POST /events`: 413, 422, 503."""
