"""Holds what a team declares, and what its FastAPI application includes: `Headrace`."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from fastapi import APIRouter, Depends, FastAPI

from headrace.aggregates.aggregate import Aggregate
from headrace.database.pool import Connection
from headrace.errors import ConfigurationError, StateUnavailableError, TransportError
from headrace.handlers.effect import EffectOptions
from headrace.handlers.middleware import Middleware, checked_middleware
from headrace.handlers.policy import PolicyOptions
from headrace.handlers.signature import names_in
from headrace.handlers.subscription import Start, Subscription
from headrace.http.authenticator import Authenticator
from headrace.http.direct import serve_directly
from headrace.http.guard import install_guard, require
from headrace.http.openapi import extend_openapi
from headrace.http.problems import ProblemRoute
from headrace.ingest import build_router as ingest_router
from headrace.log.ports import Log
from headrace.order.declared import Order
from headrace.outbox.transaction import OutboxTransaction, give_back, in_transaction, translated
from headrace.projections.projection import Projection
from headrace.publishing.checking import CheckedEvent, Trace
from headrace.publishing.client import open_publisher
from headrace.publishing.publisher import AnyEvent, EventPublisher, Published, checked_event
from headrace.queries import build_router as query_router
from headrace.queries.projections import build_router as projection_router
from headrace.registry import Decoder, Registry
from headrace.runtime import Runtime
from headrace.sagas.saga import DataT, Saga
from headrace.schema_registry.decoder import SchemaDecoder, Taker
from headrace.schema_registry.schemas import Schemas
from headrace.settings import Settings, load_settings
from headrace.store.store import EventStore
from headrace.store.transactions import Place, RoutePlace, always, place_of
from headrace.supervisor import leave_when_failed
from headrace.tables.table import Index
from headrace.tasks.task import P, R, Task
from headrace.telemetry.logging import configure_logging
from headrace.telemetry.routes import telemetry_routes
from headrace.telemetry.trace_context import current
from headrace.windows.windows import Windows

if TYPE_CHECKING:
    from headrace.outbox.session import SessionOutbox

DecoderT = TypeVar("DecoderT", bound=Decoder)
MiddlewareT = TypeVar("MiddlewareT", bound=Middleware)


class Headrace:
    """Runs the event platform of one service.

    ```python
    events = Headrace("shop")
    app = FastAPI(lifespan=events.lifespan)
    app.include_router(events.router)
    wallets = events.subscription("wallets")
    ```
    `service` names the service in the sources of events, in the consumer groups and in every table. Settings come from
    the environment unless given. `authenticate=Depends(function)` says who a request to the platform's routes comes
    from, instead of API keys: the function is any FastAPI dependency that returns a `Caller`, or None.
    """

    def __init__(self, service: str, settings: Settings | None = None, *, authenticate: Any = None) -> None:
        self.registry = Registry(service)
        self.runtime: Runtime | None = None
        """The running platform; None before the application has started."""
        self.fatal: ConfigurationError | None = None
        """Why the platform gave up, if only a person can help."""
        self.is_supervised = False
        """True if whoever runs the application waits for `runtime.failed`; else the process sends itself SIGTERM."""
        self.publisher = EventPublisher(self.registry, self._running)
        """What `publish` works with; a route takes it as `Publisher`."""
        self.authenticator = None if authenticate is None else Authenticator(authenticate)
        self._settings = settings
        self._schemas = Schemas(lambda: self.settings.schema_registry)

    @cached_property
    def router(self) -> APIRouter:
        """The platform's routes, for an application to include; made only then, which takes tens of milliseconds."""
        return build_router()

    @property
    def settings(self) -> Settings:
        """The settings, read once. Raises: ConfigurationError that lists every fault."""
        if self._settings is None:
            self._settings = load_settings()
        return self._settings

    @property
    def database_url(self) -> str:
        """The address of the platform's database, for an engine of your own beside it; known once it has started.

        On an embedded one, too: `create_async_engine(make_url(events.database_url).set(...))` in your lifespan.
        Raises: ConfigurationError (the application has not started).
        """
        if self.runtime is not None and self.runtime.database_url is not None:
            return self.runtime.database_url
        if not self.settings.is_database_embedded:
            return self.settings.database_url
        raise ConfigurationError(
            "the embedded database has an address once the application has started; make your engine in your own "
            "lifespan, inside of `async with events.lifespan(app)`."
        )

    def subscription(
        self, name: str, *, start: Start = "earliest", order: Order | None = None, **options: Unpack[PolicyOptions]
    ) -> Subscription:
        """Declare a subscription; `start` says with which event it begins: the oldest, or what comes from now on.

        `order` says what is done about events that come late, or before others that they follow: `Latest()` or
        `InSequence()`; without it, all are applied as they come. The options say what is done about its handlers when
        they fail, unless they have options of their own.
        """
        return self.registry.add_subscription(name, start, order, **options)

    def saga(self, name: str, data: type[DataT], **options: Unpack[PolicyOptions]) -> Saga[DataT]:
        """Declare a saga: work of several steps that ends as a whole or is undone; `data` are what it knows of a key.

        It is a subscription of that name as well; the options are those of its handlers' policies.
        """
        return self.registry.add_saga(name, data, **options)

    def windows(
        self,
        name: str,
        value: type[DataT],
        *,
        size: timedelta,
        every: timedelta | None = None,
        lateness: timedelta = timedelta(0),
        ttl: timedelta | None = None,
        time: Callable[[Any], datetime] | None = None,
        **options: Unpack[PolicyOptions],
    ) -> Windows[DataT]:
        """Declare windows of each key: what its events come to in every `size`, as a value of a class.

        They follow each other, or begin `every` so often and overlap. An event is in the windows that hold the time of
        its envelope, or `time(event)`; one that is late by up to `lateness` is waited for. With `ttl` nothing is kept
        of a key for longer after its last event. It is a subscription of that name as well.
        Raises: ConfigurationError (a wrong name, class, time or option).
        """
        shape = {"size": size, "every": every, "lateness": lateness, "ttl": ttl, "time": time}
        return self.registry.add_windows(name, value, options, **shape)

    def projection(
        self,
        name: str,
        model: type[Any],
        *,
        key: Index,
        indexes: Sequence[Index] = (),
        table: str | None = None,
        **options: Unpack[PolicyOptions],
    ) -> Projection:
        """Declare a read model: a table `projections.<name>` with a column for each field of the class.

        `key` names the field, or the fields, that a row is found by; `indexes` name one or several each. It is a
        subscription of that name, whose handlers take `Table[model]`.
        """
        made = Projection(
            name,
            model,
            key=key,
            indexes=indexes,
            table=table,
            service=self.registry.service,
            build_router=projection_router,
            **options,
        )
        self.registry.add_projection(made)
        return made

    def task(
        self, *, name: str | None = None, key: str | None = None, **options: Unpack[EffectOptions]
    ) -> Callable[[Callable[P, R]], Task[P, R]]:
        """Declare a function that routes leave to the service: `await tasks.add_task(send_mail, to="ada")`.

        It is called behind the route's answer, by any process of the service, and at least once: as an effect, whose
        options it takes. Its parameters are written as JSON; `Step`, `Envelope`, `Emit` and `Depends(...)` are given to
        it. Tasks of one `key`, which names a parameter, run one after the other; without it all run at once. `name` is
        the function's own, unless given: the log knows the task by it. Raises: ConfigurationError.
        """
        local_names = names_in(sys._getframe(1))

        def declare(function: Callable[P, R]) -> Task[P, R]:
            made = Task(function, local_names, service=self.registry.service, name=name, key=key)
            self.registry.add_task(made, options)
            return made

        return declare

    def declare(self, *models: type[Any]) -> None:
        """Declare aggregates, and event types that no handler of this service takes: what is published or emitted."""
        for model in models:
            if issubclass(model, Aggregate):
                self.registry.add_aggregate(model)
            else:
                self.registry.add_type(model)

    def middleware(self, function: MiddlewareT) -> MiddlewareT:
        """Declare a hook around the handling of each event: `async def timed(handling, call_next)`.

        It returns `await call_next(handling)`, or other events to emit; what it raises, the handler has raised. The one
        that is declared last is the outermost. Around plain handlers it may await nothing but `call_next`.
        Raises: ConfigurationError (not such a function, the service runs already).
        """
        if self.runtime is not None:
            raise ConfigurationError("a middleware is declared before the application starts; move it to a module.")
        self.registry.middlewares.append(checked_middleware(function))
        return function

    @overload
    def decoder(self, topic: str) -> Callable[[DecoderT], DecoderT]: ...
    @overload
    def decoder(self, topic: str, *, schemas: Mapping[str, type[Any] | Taker | None]) -> None: ...
    def decoder(
        self, topic: str, *, schemas: Mapping[str, type[Any] | Taker | None] | None = None
    ) -> Callable[[DecoderT], DecoderT] | None:
        """Declare how records of a foreign topic (not CloudEvents) become events.

        The function takes the record (`.key`, `.value`, `.headers`, `.timestamp`) and returns an instance of a declared
        event type, or None to skip it; what it raises makes the record a dead letter. The event's id is the
        record's position and time.
        With `schemas` no function is needed: the records are Avro, Protobuf or JSON of a schema registry. It gives, by
        the full name of a record or message, the event type, a function `(record, value) -> event`, or None to skip.
        Raises: ConfigurationError.
        """
        if schemas is not None:
            self.registry.add_decoder(topic, SchemaDecoder(topic, schemas, self._schemas))
            return None

        def declare(function: DecoderT) -> DecoderT:
            self.registry.add_decoder(topic, function)
            return function

        return declare

    @overload
    async def publish(self, event: AnyEvent, *, key: str | None = None, id: str | None = None) -> Published: ...
    @overload
    async def publish(self, event: Sequence[AnyEvent], *, key: str | None = None) -> list[Published]: ...
    async def publish(self, event: Any, **options: Any) -> Published | list[Published]:
        """Publish one event, or a list of events, from any coroutine of the running application.

        Returns once the log has them: `(id, position)`, for a list a list of that. See `EventPublisher.publish`.
        """
        published: Published | list[Published] = await self.publisher.publish(event, **options)
        return published

    @asynccontextmanager
    async def transaction(self, connection: Connection | None = None) -> AsyncIterator[OutboxTransaction]:
        """Run own SQL and emit events in one transaction: `async with events.transaction() as tx`.

        SQL runs on `tx.connection` (asyncpg); what `tx.emit(event)` takes is published within milliseconds of the
        commit, in the order of the commits for each key. An exception rolls both back. With a `connection` of your own
        it works in scripts, too.
        Raises: StateUnavailableError (Postgres is away), and what the block raises.
        """
        async with AsyncExitStack() as stack:
            if connection is None:
                if self.runtime is None or self.runtime.pool is None:
                    raise StateUnavailableError("the platform is not connected to Postgres.")
                pool = self.runtime.pool
                with translated():
                    connection = await pool.acquire()
                stack.push_async_callback(give_back, pool, connection)
            tx = OutboxTransaction(connection, self._prepare, self.settings.kafka.max_record_bytes)
            await stack.enter_async_context(
                in_transaction(self.registry.service, tx, self._wake_outbox, self._wake_timers)
            )
            yield tx

    def outbox(self, session: Any) -> SessionOutbox:
        """Return the outbox of a SQLAlchemy session: `events.outbox(session).publish(event)`, then commit as always.

        `session` is an `AsyncSession` or a `Session`, SQLModel's as well, on the platform's database. Raises:
        ConfigurationError (something else).
        """
        from headrace.outbox.session import SessionOutbox  # SQLAlchemy need not be installed

        most = self.settings.kafka.max_record_bytes
        return SessionOutbox(session, self.registry.service, self._prepare, self._wake_soon, most)

    def store(
        self, tx: Any = None, *, correlation_id: str | None = None, causation_id: str | None = None
    ) -> EventStore:
        """Return the event store: `events.store(tx)` works in your transaction, `events.store()` in its own.

        `tx` is what `events.transaction()` yields, a route's `Outbox`, a handler's `Transaction` or an `AsyncSession`.
        What is appended carries the two ids; in a handler they are those of its event unless you give others. Raises:
        ConfigurationError (something else).
        """
        most = self.settings.kafka.max_record_bytes
        place = None if tx is None else always(place_of(tx, self.registry.service, most, self.outbox))
        return EventStore(
            self.registry,
            place or self._open_place,
            self._trace,
            is_shared=tx is not None,
            metrics=None if self.runtime is None else self.runtime.metrics,
            correlation_id=correlation_id,
            causation_id=causation_id,
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[EventPublisher]:
        """Open a publisher for a script without a server: `async with events.client() as publisher`.

        In the process of a running application it is that application's. Raises: ConfigurationError, TransportError.
        """
        if self.runtime is not None:
            yield self.publisher
            return
        async with open_publisher(self.settings, self.registry) as publisher:
            yield publisher

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Run the platform while the application serves: `FastAPI(lifespan=events.lifespan)`."""
        settings = self.settings
        configure_logging(settings)
        app.state.headrace = self
        install_guard(app, settings, self.authenticator)
        build_openapi = app.openapi
        app.openapi = lambda: extend_openapi(build_openapi(), self.registry)  # type: ignore[method-assign]
        is_server = threading.current_thread() is threading.main_thread()  # a test's client runs it in another one
        self.registry.follow(app.dependency_overrides)
        self.runtime = Runtime(settings, self.registry, ends_process=is_server)
        if is_server and not self.is_supervised:
            leave_when_failed(self.runtime.failed)
        try:
            await self.runtime.start()
            serve_directly(app, self.registry.types)
            yield
        except ConfigurationError as error:
            self.fatal = error
            raise
        finally:
            runtime, self.runtime = self.runtime, None
            self.fatal = self.fatal or (runtime.fatal.result() if runtime.fatal.done() else None)
            await runtime.stop()

    def _running(self) -> tuple[Runtime, Log]:
        if self.runtime is None:
            raise ConfigurationError(
                "the platform does not run; start the application, or publish from a script with "
                "`async with events.client() as publisher`."
            )
        if self.runtime.log is None:
            raise TransportError("the log is not connected yet; nothing was published.")
        return self.runtime, self.runtime.log

    def _prepare(self, event: object, *, key: str | None, id: str | None) -> CheckedEvent:
        return checked_event(self.registry, event, self._trace, key=key, id=id)

    @property
    def _trace(self) -> Trace:
        return current if self.runtime is None else self.runtime.tracing.carried

    @asynccontextmanager
    async def _open_place(self) -> AsyncIterator[Place]:
        async with self.transaction() as tx:
            yield RoutePlace(tx, self.settings.kafka.max_record_bytes)

    def _wake_outbox(self, slots: set[int]) -> None:
        if self.runtime is not None:
            self.runtime.wake_outbox(slots)

    def _wake_timers(self, seconds: float) -> None:
        if self.runtime is not None and self.runtime.outbox is not None:
            self.runtime.outbox.wake_timers(seconds)

    def _wake_soon(self, slots: set[int]) -> None:
        """Wake the relay from any thread; without a running platform its own look at the table finds the events."""
        if self.runtime is not None:
            self.runtime.loop.call_soon_threadsafe(self._wake_outbox, slots)


def build_router() -> APIRouter:
    """Return all routes of one platform, each guarded by itself, so that they are so under any prefix.

    They stand in one list, since a search through routers within routers costs each request some microseconds.
    """
    telemetry = telemetry_routes([Depends(require("read"))], route_class=ProblemRoute)
    routes = [route for router in (ingest_router(), query_router(), telemetry) for route in router.routes]
    return APIRouter(routes=routes)
