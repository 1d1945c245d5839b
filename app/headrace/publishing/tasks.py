"""Lets a FastAPI route leave work to the service: `BackgroundTasks` whose work survives a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from headrace.publishing.dependency import answered, platform_of
from headrace.publishing.publisher import EventPublisher, Published
from headrace.tasks.task import Task


class TaskAdder:
    """Adds calls of tasks."""

    def __init__(self, publisher: EventPublisher) -> None:
        self._publisher = publisher

    async def add_task(self, task: Task[..., Any], *args: Any, **kwargs: Any) -> Published:
        """Let the service call the task with these arguments; return when the log has that, so no crash loses it.

        Cancel: the task may be added or not. Raises: TypeError (no task, other parameters than the function's),
        ValidationError (wrong values), and as `events.publish`.
        """
        if not isinstance(task, Task):
            raise TypeError(f"{getattr(task, '__name__', task)} is no task; write @events.task() above the function.")
        return await self._publisher.publish(task.event(*args, **kwargs))


async def route_tasks(connection: HTTPConnection) -> AsyncIterator[TaskAdder]:
    """Yield what adds tasks of the route's application."""
    with answered():
        yield TaskAdder(platform_of(connection).publisher)


Tasks = Annotated[TaskAdder, Depends(route_tasks)]
"""`async def sign_up(user: User, tasks: Tasks)`: `await tasks.add_task(send_mail, user.mail)`. What adding raises and
the route lets through is answered as by `POST /events`: 413, 422, 503."""
