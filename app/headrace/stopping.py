"""The end of what was started: each part registers its own, and all are unwound in reverse order.

A step that fails, or takes longer than its time, is logged, and the next one follows.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from headrace.telemetry.logging import get_logger

T = TypeVar("T")

logger = get_logger("headrace")

ASYNCIO = str(Path(asyncio.__file__).parent)
CANCEL_SECONDS = 1.0
"""How long a task that took too long may take to be cancelled; then it is left behind."""


class Step(NamedTuple):
    """One part's end."""

    what: str
    end: Callable[[], Awaitable[object] | object]
    """Returns, or its awaitable returns, False if it had to cut something short; every other value is a success."""
    seconds: float


class Stops:
    """The ends of the parts that were started.

    ```python
    await log.start()
    stops.push("log", log.stop, seconds=6)
    ...
    await stops.unwind()
    ```
    """

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def push(self, what: str, end: Callable[[], Awaitable[object] | object], *, seconds: float) -> None:
        """Register how a part ends that was just started; `end` may be a coroutine function or a short plain one."""
        self._steps.append(Step(what, end, seconds))

    @property
    def limit_seconds(self) -> float:
        """The longest that `unwind` can take."""
        return sum(step.seconds + CANCEL_SECONDS for step in self._steps)

    async def unwind(self) -> set[str]:
        """End every part, the last one first; return those that failed or were cut short. Never raises."""
        unclean = set()
        while self._steps:
            what, end, seconds = self._steps.pop()
            if await finish(what, _called(end), seconds, default=False) is False:
                unclean.add(what)
        return unclean


async def finish(what: str, work: Awaitable[T], seconds: float, default: T | None = None) -> T | None:
    """Return the work's result, or the default if it failed or took longer; then it is cancelled. Never raises."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        logger.error("a step of the stop took too long", step=what, limit_seconds=seconds)
        await end_tasks({task}, CANCEL_SECONDS)
        return default
    if task.cancelled():
        logger.error("a step of the stop was cancelled", step=what)
        return default
    if (error := task.exception()) is not None:
        logger.error("a step of the stop failed", step=what, exc_info=(type(error), error, error.__traceback__))
        return default
    return task.result()


async def end_tasks(tasks: set[asyncio.Task[T]], seconds: float) -> set[asyncio.Task[T]]:
    """Cancel the tasks and return those that have not ended after the seconds. Never raises."""
    for task in tasks:
        task.cancel()
    return (await asyncio.wait(tasks, timeout=seconds))[1] if tasks else set()


def is_being_cancelled() -> bool:
    """Tell whether the current task is asked to end. If not, a CancelledError is one that a library let through."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def ends_the_task(error: BaseException, task: asyncio.Task[object]) -> bool:
    """Tell whether an error is no fault of what the task has called: an interrupt, or its coroutine is thrown away.

    A coroutine that is thrown away gets a GeneratorExit while its task does not run.
    """
    if isinstance(error, GeneratorExit):
        try:
            return asyncio.current_task() is not task
        except RuntimeError:  # no loop runs
            return True
    return isinstance(error, KeyboardInterrupt)


def describe_task(task: asyncio.Task[object]) -> str:
    """Return the task's name and the function that keeps it waiting, such as a handler."""
    awaited: object = task.get_coro()
    function = ""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None and not frame.f_code.co_filename.startswith(ASYNCIO):
            function = frame.f_code.co_qualname
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return f"{task.get_name()} in {function}" if function else task.get_name()


async def _called(end: Callable[[], Awaitable[object] | object]) -> object:
    result = end()
    return await result if inspect.isawaitable(result) else result
