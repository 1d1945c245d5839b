"""`headrace run`: serve the application, or work without HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any

import typer
from fastapi import FastAPI

from headrace.cli.announcement import Announcement, address_of
from headrace.cli.group import run_group
from headrace.cli.loading import Target
from headrace.cli.server import Server, cut_short, listen, several_times
from headrace.database.early import keep_early_for
from headrace.http.access import refuse_exposure
from headrace.loading import find_platform, load_app, running
from headrace.platform import Headrace
from headrace.processes.child import Parent
from headrace.runtime import THREAD_PREFIX, Runtime
from headrace.settings import load_settings
from headrace.stopping import describe_task, end_tasks
from headrace.supervisor import BEYOND_REPAIR, CUT_SHORT, end_process
from headrace.telemetry.logging import configure_logging

TASKS_SECONDS = 5.0
"""How long the tasks that are left after the drain may take to be cancelled."""
THREADS_SECONDS = 1.0
"""An idle thread ends at once; one that is left after this hangs."""


def run(
    target: Target,
    role: Annotated[str | None, typer.Option(help="all, ingest (HTTP only) or worker (handlers only).")] = None,
    host: Annotated[str, typer.Option(help="The address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to serve on; 0 takes a free one.", min=0, max=65_535)] = 8000,
    workers: Annotated[int, typer.Option(help="Processes behind the one port, which share the work.", min=1)] = 1,
    listener: Annotated[list[int] | None, typer.Option(hidden=True)] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the application's event platform until SIGTERM or Ctrl-C; a second signal cuts the drain short.

    With more than one worker, each is a process of its own: one that dies is replaced, and all are stopped together.
    Exit codes: 0 stopped as asked, 1 wrong set-up or cut short, 2 wrong command line, 70 beyond repair.
    """
    if role is not None:
        os.environ["HEADRACE_ROLE"] = role
    settings = load_settings()
    configure_logging(settings)
    if workers > 1:
        raise typer.Exit(run_group(target, settings, host, port, workers))
    app = load_app(target)
    platform = find_platform(app)
    settings = platform.settings
    keep_early_for(settings)
    announce = Announcement(app, platform, None if parent is None else Parent(parent))
    if settings.role == "worker":
        work = _work(app, platform, announce)
    else:
        refuse_exposure(settings, host, is_authenticated=platform.authenticator is not None)
        listeners = [socket.socket(fileno=each) for each in listener] if listener else listen(host, port)
        work = _serve(app, platform, announce, listeners, host)
    platform.is_supervised = True
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(_to_the_end(work))
    _end_with_hung_threads(code)
    raise typer.Exit(code)


async def _to_the_end(work: Coroutine[Any, Any, int]) -> int:
    """Return the work's exit code once every task has ended; a task that cannot be cancelled ends with the process."""
    code = await work
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if hung := await end_tasks(others, TASKS_SECONDS):
        names = sorted(describe_task(task) for task in hung)
        end_process(code or CUT_SHORT, "tasks that cannot be cancelled end with the process", tasks=names)
    return code


async def _serve(
    app: FastAPI, platform: Headrace, announce: Announcement, listeners: list[socket.socket], host: str
) -> int:
    announce.watch_parent()
    server = Server(app, platform, partial(announce, address_of(host, listeners)))
    await server.serve(several_times(listeners))
    return _exit_code(platform, server.runtime if server.is_up else None)


async def _work(app: FastAPI, platform: Headrace, announce: Announcement) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            cut_short()
        stopping.set()
        if platform.runtime is not None:
            platform.runtime.begin_drain()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    announce.watch_parent()
    async with app.router.lifespan_context(app):
        runtime = running(platform)
        announce(None)
        waiting = asyncio.create_task(stopping.wait())
        ends: set[asyncio.Future[Any]] = {waiting, runtime.fatal, runtime.failed}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    return _exit_code(platform, runtime)


def _end_with_hung_threads(code: int) -> None:
    """End the process if a handler still runs after the drain: Python would wait for its thread at the exit."""
    deadline = time.monotonic() + THREADS_SECONDS
    threads = [thread for thread in threading.enumerate() if thread.name.startswith((THREAD_PREFIX, "handlers"))]
    waited_for = [thread for thread in threads if not thread.daemon]
    for thread in waited_for:
        thread.join(max(0.0, deadline - time.monotonic()))
    if hung := sorted(thread.name for thread in waited_for if thread.is_alive()):
        end_process(code or CUT_SHORT, "handlers that hang end with the process", threads=hung)


def _exit_code(platform: Headrace, runtime: Runtime | None) -> int:
    """Return 70 if the process is beyond repair, 0 after a clean stop that was asked for, else 1.

    `runtime` is None if the platform did not come up. Raises: ConfigurationError (why it did not).
    """
    if runtime is not None and runtime.failed.done():
        return BEYOND_REPAIR
    if platform.fatal is not None and runtime is None:
        raise platform.fatal
    return 0 if runtime is not None and runtime.is_clean and platform.fatal is None else CUT_SHORT


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
