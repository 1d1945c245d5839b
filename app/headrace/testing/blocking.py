"""The same service for plain tests: it runs in a thread of its own, and every method waits."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from headrace.errors import ConfigurationError
from headrace.platform import Headrace
from headrace.publishing.publisher import AnyEvent, Published
from headrace.sagas.kept import Kept as KeptSaga
from headrace.testing.own import shown
from headrace.testing.service import Errors, Service, running

if TYPE_CHECKING:
    from starlette.testclient import TestClient

T = TypeVar("T")


class BlockingService:
    """A running application, for plain tests: the fixture `service`. See `Service` for what the methods do."""

    def __init__(self, service: Service, portal: BlockingPortal) -> None:
        self._service = service
        self._portal = portal
        self._http: TestClient | None = None

    @property
    def app(self) -> FastAPI:
        """The application."""
        return self._service.app

    @property
    def http(self) -> TestClient:
        """FastAPI's test client of the running application. Raises: ConfigurationError (httpx is not installed)."""
        if self._http is None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Starlette prefers a successor of httpx
                    from starlette.testclient import TestClient
            except (ModuleNotFoundError, RuntimeError) as error:
                raise ConfigurationError("a client of routes needs httpx: pip install httpx.") from error
            self._http = TestClient(self.app)
            self._http.portal = self._portal  # the loop that the application runs in
        return self._http

    def publish(self, *events: AnyEvent) -> list[Published]:
        """Publish events."""
        return self._call(partial(self._service.publish, *events))

    def quiet(self, *, allow: Errors = (), seconds: float = 30.0) -> None:
        """Return when all that was accepted has taken effect; raises what a handler raised."""
        __tracebackhide__ = True
        self._call(partial(self._service.quiet, allow=allow, seconds=seconds))

    def move(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let so much time pass for timers and retries."""
        self._call(partial(self._service.move, days=days, hours=hours, minutes=minutes, seconds=seconds))

    def state(self, model: type[T], key: str, *, subscription: str | None = None) -> T:
        """Return a state."""
        return self._call(partial(self._service.state, model, key, subscription=subscription))

    def saga(self, name: str, key: str) -> KeptSaga:
        """Return where a saga stands."""
        return self._call(self._service.saga, name, key)

    def published(self, model: type[T]) -> list[T]:
        """Return every event of a type that is in the log, in the order of each key."""
        return self._call(self._service.published, model)

    def call(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Return what a coroutine function returns, run in the application's event loop."""
        return self._call(function, *arguments)

    def _call(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        __tracebackhide__ = True
        return shown(lambda: self._portal.call(function, *arguments))

    @property
    def platform(self) -> Headrace:
        """The platform that runs."""
        return self._service.platform

    def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Return the rows of a query in the test's database."""
        return self._call(partial(self._service.pool.fetch, query, *arguments))

    def execute(self, query: str, *arguments: Any) -> str:
        """Run a statement in the test's database; return its status."""
        return self._call(partial(self._service.pool.execute, query, *arguments))


@contextmanager
def running_in_thread(app: FastAPI | str) -> Iterator[BlockingService]:
    """Run the application in a thread of its own; yields once it is connected."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(running(app)) as service:
        yield BlockingService(service, portal)
