"""`headrace run`: serve the application, or work without HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from fastapi import FastAPI
from rich.console import Console

from headrace.cli.loading import Target, find_platform, load_app, running
from headrace.cli.server import Server, cut_short, listen
from headrace.http.access import refuse_exposure
from headrace.http.addresses import announced
from headrace.platform import Headrace
from headrace.runtime import HANDLER_THREADS
from headrace.settings import Settings, load_settings
from headrace.telemetry.logging import configure_logging, get_logger

logger = get_logger("headrace")

THREADS_SECONDS = 1.0
"""An idle thread ends at once; one that is left after this hangs."""


def run(
    target: Target,
    role: Annotated[str | None, typer.Option(help="all, ingest (HTTP only) or worker (handlers only).")] = None,
    host: Annotated[str, typer.Option(help="The address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to serve on; 0 takes a free one.", min=0, max=65_535)] = 8000,
) -> None:
    """Run the application's event platform until SIGTERM or Ctrl-C; a second signal cuts the drain short."""
    if role is not None:
        os.environ["HEADRACE_ROLE"] = role
    configure_logging(load_settings())
    app = load_app(target)
    platform = find_platform(app)
    settings = platform.settings
    if settings.role == "worker":
        work = _work(app, platform)
    else:
        refuse_exposure(settings, host)
        work = _serve(app, platform, host, port)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(work)
    _end_with_hung_handlers()
    raise typer.Exit(code)


async def _serve(app: FastAPI, platform: Headrace, host: str, port: int) -> int:
    listeners = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listeners[0].getsockname()[1]}"
    server = Server(app, platform, lambda: _announce(platform, app, address))
    await server.serve(listeners)
    return _exit_code(platform, is_up=server.is_up)


async def _work(app: FastAPI, platform: Headrace) -> int:
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
    async with app.router.lifespan_context(app):
        runtime = running(platform)
        _announce(platform, app, None)
        waiting = asyncio.create_task(stopping.wait())
        ends: set[asyncio.Future[Any]] = {waiting, runtime.fatal}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    return _exit_code(platform, is_up=True)


def _end_with_hung_handlers() -> None:
    """End the process where a handler still runs after the drain: Python would wait for its thread at the exit."""
    deadline = time.monotonic() + THREADS_SECONDS
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(HANDLER_THREADS)]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    hung = sum(thread.is_alive() for thread in threads)
    if hung:
        logger.error("handlers that hang end with the process", threads=hung)
        logging.shutdown()
        os._exit(1)


def _exit_code(platform: Headrace, *, is_up: bool) -> int:
    """Return 0 after a stop that was asked for. Raises: ConfigurationError (why it did not come up)."""
    if platform.fatal is not None and not is_up:
        raise platform.fatal
    return 0 if is_up and platform.fatal is None else 1


def _announce(platform: Headrace, app: FastAPI, address: str | None) -> None:
    """Say where everything is: in a few lines on a terminal, as one entry of the log elsewhere."""
    runtime, settings = running(platform), platform.settings
    service, role = platform.registry.service, settings.role
    management = f"http://{settings.management_host}:{runtime.management_port}"
    places = {"health": f"{management}/health/ready", "metrics": f"{management}/metrics"}
    if address is not None:
        places = announced(app, address) | {"probes": management}
    if not _is_terminal(settings):
        logger.info("serving", service=service, role=role, address=address, **places)
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    work = f"serves on {address}" if address is not None else f"works as {role}"
    console.print(f"[bold]{service}[/] {work} (log: {settings.log})")
    for name, place in places.items():
        console.print(f"  {name:<8} {place}")


def _is_terminal(settings: Settings) -> bool:
    return settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
