"""What a team declares: `orders = events.saga("orders", Order)`, its start, its steps and its ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from pydantic import BaseModel

from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.event import Event, EventType, event_type_of
from headrace.handlers.inject import Emit, State
from headrace.handlers.returns import returned_by
from headrace.handlers.subscription import Subscription
from headrace.sagas.course import Course, Step
from headrace.sagas.diagram import diagram
from headrace.sagas.kept import Kept, kept_class

DataT = TypeVar("DataT", bound=BaseModel)
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class SagaStep:
    """A declared step: `@step.undo` says how a success is taken back, `@step.done` what is learned from one."""

    def __init__(self, saga: Saga[Any], step: Step) -> None:
        self._saga = saga
        self._step = step

    def __call__(self, data: Any) -> Any:
        """Return the commands of the step, as a test of it wants them."""
        return self._step.commands(data)

    def done(self, function: FunctionT) -> FunctionT:
        """Declare what is learned from a success: `def note(order: Order, reply: StockReserved) -> None`."""
        self._step.learn = function
        return function

    @overload
    def undo(self, function: FunctionT) -> FunctionT: ...
    @overload
    def undo(self, *, done: type[Any] | None) -> Callable[[FunctionT], FunctionT]: ...
    def undo(self, function: FunctionT | None = None, *, done: type[Any] | None = None) -> Any:
        """Declare the command that takes one success back: `def release(order: Order, reply: StockReserved)`.

        With `@step.undo(done=StockReleased)` the next undo waits until this one is answered.
        """

        def declare(function: FunctionT) -> FunctionT:
            if self._step.done is None:
                raise ConfigurationError(
                    f"{self._saga.name}: {self._step.name} has no done=, so nothing tells what to undo."
                )
            self._step.undo = function
            self._step.undone = self._saga.react(done, "undone", self._saga.course.undone, self._step, function)
            return function

        return declare if function is None else declare(function)


class Saga(Generic[DataT]):
    """Work of several steps for each key, as a subscription of its own; see `headrace.sagas`."""

    def __init__(self, subscription: Subscription, model: type[DataT], service: str) -> None:
        if not _is_model(model):
            raise ConfigurationError(f"saga {subscription.name!r}: its data are a pydantic.BaseModel, not {model!r}.")
        self.subscription = subscription
        self.name = subscription.name
        self.course = Course(subscription.name)
        self._service = service
        self._kept = kept_class(model)
        self._commands: dict[Callable[..., Any], tuple[type[Any], ...]] = {}

    def start(self, model: type[Any]) -> Callable[[FunctionT], FunctionT]:
        """Declare the event that starts a saga, and what it then knows: `def begin(event: OrderPlaced) -> Order`."""

        def declare(function: FunctionT) -> FunctionT:
            if self.course.started_by is not None:
                raise ConfigurationError(f"saga {self.name!r} has two starts; keep one.")
            self.course.begin = function
            self.course.started_by = self.react(model, "started", self.course.started, None, None)
            assert self.course.started_by is not None
            timed_out = self._timed_out(self.course.started_by.topic)
            self.course.timed_out_model = timed_out
            self.react(timed_out, "timed_out", self.course.timed_out, None, None)
            return function

        return declare

    def step(
        self,
        *,
        done: type[Any] | None = None,
        failed: type[Any] | None = None,
        within: float | timedelta | None = None,
    ) -> Callable[[Callable[..., Any]], SagaStep]:
        """Declare the next step: a function of the saga's data that returns one command or several, or none.

        It is over when each command is answered by an event of the type `done`; one `failed`, or the end of the time,
        ends the saga and undoes it. Without `done` it is over at once.
        """

        def declare(function: Callable[..., Any]) -> SagaStep:
            seconds = within.total_seconds() if isinstance(within, timedelta) else within
            if done is None and (failed is not None or within is not None):
                raise ConfigurationError(f"saga {self.name!r}: {function.__name__} waits for nothing; give it done=.")
            step = Step(function.__name__, function, seconds)
            if self.course.step(step.name) is not None:
                raise ConfigurationError(f"saga {self.name!r} has two steps named {step.name}; rename one.")
            self.course.steps.append(step)
            step.done = self.react(done, "done", self.course.done, step, function)
            step.failed = self.react(failed, "failed", self.course.failed, step, None)
            return SagaStep(self, step)

        return declare

    def completed(self, function: FunctionT) -> FunctionT:
        """Declare what is emitted when every step is done: `def confirm(order: Order) -> OrderConfirmed`."""
        self.course.completed = function
        return function

    def compensated(self, function: FunctionT) -> FunctionT:
        """Declare what is emitted when all is undone: `def reject(order: Order, reason: str) -> OrderRejected`."""
        self.course.compensated = function
        return function

    def abandoned_by(self, model: type[Any]) -> None:
        """Declare an event that ends a running saga and undoes it: `orders.abandoned_by(OrderCancelled)`."""
        self.course.abandoned_by.append(self.react(model, "abandoned", self.course.abandoned, None, None))

    @property
    def diagram(self) -> str:
        """The saga as a Mermaid state diagram."""
        return diagram(self.course)

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The team's own functions, those that are declared."""
        course = self.course
        found = [course.begin, course.completed, course.compensated]
        for step in course.steps:
            found += [step.commands, step.learn, step.undo]
        return [each for each in found if each is not None]

    def check(self) -> list[type[Any]]:
        """Return the events that it emits, also by its timers. Raises: ConfigurationError if it is not complete."""
        course = self.course
        if course.started_by is None or not course.steps:
            raise ConfigurationError(
                f"saga {self.name!r} has no start or no step; declare both: @saga.start(Event), @saga.step(done=Reply)."
            )
        functions = [course.completed, course.compensated]
        for step in course.steps:
            functions += [step.commands, step.undo]
        sent = [model for each in functions if each is not None for model in returned_by(each)]
        has_time_out = any(step.seconds is not None for step in course.steps)
        return [*sent, course.timed_out_model] if has_time_out else sent

    def react(
        self,
        model: type[Any] | None,
        what: str,
        move: Callable[..., None],
        step: Step | None,
        function: Callable[..., Any] | None,
    ) -> EventType | None:
        """Make the handler of an event that moves the saga on; return its type."""
        if model is None:
            return None
        takes_step = (step,) if step is not None else ()

        def handler(event: Any, envelope: Envelope, kept: Kept, emit: Emit) -> None:
            move(*takes_step, kept, event, envelope, emit)

        name = step.name if step is not None else self.name
        state: Any = State
        handler.__name__ = handler.__qualname__ = f"{name}_{what}"
        handler.__annotations__ = {
            "event": model,
            "envelope": Envelope,
            "kept": state[self._kept],
            "emit": Emit,
            "return": None,
        }
        self.subscription.on(model)(handler)
        return event_type_of(model)

    def _timed_out(self, topic: str) -> type[Event]:
        class StepTimedOut(
            Event, type=f"{self._service}.{self.name}.timed_out", topic=topic, key="saga", internal=True
        ):
            """The time of a saga's step is up."""

            saga: str
            step: str

        return StepTimedOut


def _is_model(model: object) -> bool:
    return inspect.isclass(model) and issubclass(model, BaseModel)
