"""What `events.task()` makes of a function, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel, ValidationError

from headrace import Headrace, State, Step
from headrace.errors import ConfigurationError
from headrace.publishing.tasks import TaskAdder
from headrace.testing import Handlers


class Member(BaseModel):
    """Somebody."""

    name: str


def rates() -> int:
    return 7


def _app(events: Headrace) -> FastAPI:
    app = FastAPI(lifespan=events.lifespan)
    app.include_router(events.router)
    return app


def test_a_task_gets_its_arguments_and_what_the_platform_gives() -> None:
    """Models, defaults, `Step` and dependencies; positional and by name."""
    events, calls = Headrace("club"), list[Any]()

    @events.task()
    async def greet(
        member: Member, text: str = "hello", *, step: Step, times: Annotated[int, Depends(rates)], loud: bool = False
    ) -> None:
        calls.append((member, text, len(step.key), times, loud))

    with Handlers(_app(events)) as handlers:
        handlers.when(greet.event(Member(name="ada")))
        handlers.when(greet.event(Member(name="bob"), text="bye", loud=True))
    assert calls == [(Member(name="ada"), "hello", 32, 7, False), (Member(name="bob"), "bye", 32, 7, True)]


async def test_a_task_that_is_called_is_the_function() -> None:
    events = Headrace("club")

    @events.task()
    async def double(number: int) -> int:
        return 2 * number

    @events.task()
    def halve(number: int) -> int:
        return number // 2

    assert (await double(4), halve(4)) == (8, 2)


def test_a_function_without_async_runs_as_well() -> None:
    events, calls = Headrace("club"), list[int]()

    @events.task()
    def note(number: int) -> None:
        calls.append(number)

    with Handlers(_app(events)) as handlers:
        handlers.when(note.event(3))
    assert calls == [3]


def test_wrong_arguments_are_refused_when_the_task_is_added() -> None:
    """Not when it is called, hours later."""
    events = Headrace("club")

    @events.task()
    async def note(number: int) -> None: ...

    with pytest.raises(TypeError, match="missing a required argument: 'number'"):
        note.event()
    with pytest.raises(ValidationError, match="number"):
        note.event("four")


def test_a_task_cannot_be_asked_for_over_http() -> None:
    """Its type is internal: only the service's own code adds tasks."""
    events = Headrace("club")

    @events.task(key="number")
    async def note(number: int) -> None: ...

    events.registry.complete()
    event_type = events.registry.types["task.note"]
    assert (event_type.is_internal, event_type.topic, event_type.key_field) == (True, "club-tasks", "number")


def _without_annotation(events: Headrace) -> None:
    @events.task()
    async def note(number) -> None: ...  # type: ignore[no-untyped-def]


def _with_stars(events: Headrace) -> None:
    @events.task()
    async def note(*numbers: int) -> None: ...


def _with_a_wrong_key(events: Headrace) -> None:
    @events.task(key="name")
    async def note(number: int) -> None: ...


def _with_a_state(events: Headrace) -> None:
    @events.task()
    async def note(number: int, kept: State[Member]) -> None: ...


def _twice(events: Headrace) -> None:
    @events.task()
    async def note(number: int) -> None: ...

    @events.task(name="note")
    async def other(number: int) -> None: ...


def _beside_an_own_subscription(events: Headrace) -> None:
    events.subscription("tasks")
    _with_a_good_one(events)


def _with_a_good_one(events: Headrace) -> None:
    @events.task()
    async def note(number: int) -> None: ...


def _with_a_lambda(events: Headrace) -> None:
    events.task()(lambda: None)


def _with_a_wrong_option(events: Headrace) -> None:
    @events.task(concurrency=0)
    async def note(number: int) -> None: ...


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (_without_annotation, "task 'note': parameter 'number' has no annotation; its type is that of a field."),
        (_with_stars, "task 'note': parameter 'numbers' has no name in an event"),
        (_with_a_wrong_key, "task 'note': key='name' is none of its parameters: number."),
        (_with_a_state, "State"),
        (_twice, "task 'note' is declared twice; give one of them another name=."),
        (_beside_an_own_subscription, "tasks"),
        (_with_a_lambda, "write a function, def or async def, below @events.task()."),
        (_with_a_wrong_option, "concurrency=0 is wrong"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_wrong_task_is_refused_when_it_is_declared(declare: Callable[[Headrace], None], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        declare(Headrace("club"))
    assert said in str(refused.value)


async def test_a_plain_function_cannot_be_added() -> None:
    adder = TaskAdder(Headrace("club").publisher)
    with pytest.raises(TypeError, match=r"rates is no task; write @events.task\(\) above the function"):
        await adder.add_task(rates)  # type: ignore[arg-type]


def test_a_task_may_have_any_parameters_that_have_names() -> None:
    """Some need a value behind others that do not: they are keywords then."""
    events, calls = Headrace("club"), list[Any]()

    @events.task()
    async def send(to: str = "all", *, subject: str, times: int = Depends(rates), step: Step) -> None:
        calls.append((to, subject, times, len(step.key)))

    with Handlers(_app(events)) as handlers:
        handlers.when(send.event(subject="hello"))
        handlers.when(send.event("ada", subject="bye"))
    assert calls == [("all", "hello", 7, 32), ("ada", "bye", 7, 32)]
