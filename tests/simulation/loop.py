"""An event loop with virtual time: what is ready runs in an order drawn from the seed, then time jumps to what is next.

Each handle belongs to a process of the simulation, by its context. A process can end or freeze between any two steps:
what it had to do is dropped, or kept until it is thawed.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from random import Random
from typing import Any, cast

STEPS_AT_ONE_TIME = 200_000
"""More steps without any time in between are an endless loop."""


class Process:
    """A process of the simulation: it runs, is frozen or has ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_frozen = False
        self.clock_offset = 0.0
        """What its wall clock is ahead of the true time."""
        self.kept: list[Handle] = []
        """What became ready while it was frozen."""


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
OUTSIDE = contextvars.Context()
"""The context of servers and of the simulation itself, which no fault of a process reaches."""


class EndlessError(Exception):
    """The code goes in a circle without waiting for anything."""


class Handle:
    """A callback that is ready, or will be at a time."""

    __slots__ = ("args", "at", "callback", "context", "is_cancelled", "process")

    def __init__(
        self,
        when: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context,
        process: Process | None,
    ) -> None:
        self.at = when
        self.callback = callback
        self.args = args
        self.context = context
        self.process = process
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.at


class Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    numbers = 0

    def __init__(self, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        Task.numbers += 1
        self.number = Task.numbers
        self.process = PROCESS.get()
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


class Loop:
    """Runs one simulation, with the verbs of a loop that the engine uses.

    `chance` decides the order of what is ready at one time.
    """

    def __init__(self, chance: Random) -> None:
        self._random = chance.random
        self._now = 0.0
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = 0
        self._is_running = False
        self._left: list[Task] = []
        """Tasks of ended processes: kept, so that none of them is collected, and runs, before the end."""
        self.steps = 0
        self.errors: list[str] = []
        """What nobody handled."""
        self.before_step: Callable[[Handle], None] | None = None
        """Is told of each step, while a fault waits for one."""

    # What asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        if context is None:
            context = contextvars.copy_context()
        handle = Handle(self._now, callback, args, context, context.get(PROCESS))
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        if context is None:
            context = contextvars.copy_context()
        return self._at(Handle(when, callback, args, context, context.get(PROCESS)))

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.call_soon(callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> Any:
        return Task(coro, loop=self, name=name, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        done = self.create_future()
        self.call_later(self._random() * 0.002, _answer, done, func, args)
        return done

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._is_running

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context['message']}: {type(error).__name__}: {error}")

    # What the simulation asks of it

    def outside(self, delay: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Call the function after a delay, whatever becomes of the process that asks for it."""
        return self._at(Handle(self._now + delay, callback, args, OUTSIDE, None))

    def _at(self, handle: Handle) -> Handle:
        self._numbers += 1
        heapq.heappush(self._timers, (handle.at, self._numbers, handle))
        return handle

    def end(self, process: Process) -> None:
        """End a process between two steps: nothing of it ever runs again."""
        process.is_alive = False
        process.kept.clear()
        self._left += [task for task in self._tasks() if task.process is process]

    def freeze(self, process: Process) -> None:
        """Keep the process from running until it is thawed."""
        process.is_frozen = True

    def _tasks(self) -> list[Task]:
        """Return the tasks that have not ended, in the order in which they began."""
        tasks = asyncio.all_tasks(cast("asyncio.AbstractEventLoop", self))
        return sorted((task for task in tasks if isinstance(task, Task)), key=lambda task: task.number)

    def thaw(self, process: Process) -> None:
        """Let the process go on, with all that it has missed."""
        process.is_frozen = False
        self._ready += process.kept
        process.kept.clear()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run until the work is done, and return its result. Raises: EndlessError, what the work raises."""
        asyncio._set_running_loop(cast("asyncio.AbstractEventLoop", self))
        self._is_running = True
        try:
            task = self.create_task(work, name="simulation")
            self._run_until(task)
            return task.result()
        finally:
            self._is_running = False
            self._close()
            asyncio._set_running_loop(None)

    def _run_until(self, task: Task) -> None:
        ready, timers, random, pop, is_done = self._ready, self._timers, self._random, heapq.heappop, task.done
        most = self.steps + STEPS_AT_ONE_TIME
        while not is_done():
            if not ready:
                if not timers:
                    raise EndlessError("nothing is left to run, and the simulation has not ended.")
                if timers[0][0] > self._now:
                    self._now = timers[0][0]
                most = self.steps + STEPS_AT_ONE_TIME
            while timers and timers[0][0] <= self._now:
                handle = pop(timers)[2]
                if not handle.is_cancelled:
                    ready.append(handle)
            if not ready:
                continue
            place = int(random() * len(ready))
            handle, ready[place] = ready[place], ready[-1]
            ready.pop()
            if handle.is_cancelled:
                continue
            process = handle.process
            if process is not None:
                if not process.is_alive:
                    continue
                if process.is_frozen:
                    process.kept.append(handle)
                    continue
            self.steps += 1
            if self.steps > most:
                raise EndlessError(f"{STEPS_AT_ONE_TIME} steps took no time; the last was {handle.callback}.")
            if self.before_step is not None and process is not None:
                self.before_step(handle)
                if not process.is_alive:
                    continue
            try:
                handle.context.run(handle.callback, *handle.args)
            except Exception as error:
                self.call_exception_handler({"message": "a callback failed", "exception": error})

    def _close(self) -> None:
        """Close every coroutine that is left, so that none is collected later, in another simulation."""
        for task in [*self._left, *self._tasks()]:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            for _ in range(50):  # one that waits in a `finally` is closed there once more
                try:
                    coroutine.close()
                    break
                except BaseException:  # noqa: S112 - nobody is left who would want to know
                    continue
        self._ready.clear()
        self._timers.clear()


def _answer(done: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if done.cancelled():
        return
    try:
        done.set_result(func(*args))
    except Exception as error:
        done.set_exception(error)


class InlineThreads:
    """Stands for a pool of threads: a function runs in one step, some time after it was handed over."""

    def __init__(self, *_: object, **__: object) -> None:
        self._loop = cast("Loop", asyncio.get_running_loop())

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Run the function soon, unless it is cancelled before."""
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._loop.call_later(0.0005, run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work."""
