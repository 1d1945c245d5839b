"""`headrace run`: serve the application, or work without HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Annotated, Any

import typer
import uvicorn
from fastapi import FastAPI
from rich.console import Console

from headrace.cli.loading import find_platform, load_app
from headrace.errors import ConfigurationError
from headrace.platform import Headrace
from headrace.runtime import Runtime
from headrace.security.api_keys import check_exposure
from headrace.settings import Settings, load_settings
from headrace.telemetry.logging import configure_logging

Target = Annotated[str, typer.Argument(metavar="MODULE:APP", help="The application, such as shop.service:app.")]


def run(
    target: Target,
    role: Annotated[str | None, typer.Option(help="all, ingest (HTTP only) or worker (handlers only).")] = None,
    host: Annotated[str, typer.Option(help="The address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to serve on.", min=0, max=65_535)] = 8000,
) -> None:
    """Run the application's event platform until SIGTERM or Ctrl-C; a second signal cuts the drain short."""
    if role is not None:
        os.environ["HEADRACE_ROLE"] = role
    settings = load_settings()
    configure_logging(settings)
    if settings.role != "worker":
        check_exposure(settings, host)
    app = load_app(target)
    platform = find_platform(app)
    code = asyncio.Runner(loop_factory=_loop_factory()).run(
        _work(app, platform) if settings.role == "worker" else _serve(app, platform, settings, host, port)
    )
    raise typer.Exit(code)


class _Server(uvicorn.Server):
    """uvicorn, whose first signal also tells the platform to drain, so that open streams end."""

    platform: Headrace

    def handle_exit(self, sig: int, frame: object) -> None:
        if self.platform.runtime is not None:
            self.platform.runtime.begin_drain()
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


async def _serve(app: FastAPI, platform: Headrace, settings: Settings, host: str, port: int) -> int:
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.engine.drain_seconds),
        lifespan="on",
    )
    server = _Server(config)
    server.platform = platform
    serving = asyncio.create_task(server.serve())
    watching = asyncio.create_task(_announce(server, platform, settings, host))
    await serving
    watching.cancel()
    runtime_error = platform.fatal
    if runtime_error is not None:
        raise ConfigurationError(str(runtime_error))
    return 0 if server.started else 1


async def _announce(server: _Server, platform: Headrace, settings: Settings, host: str) -> None:
    while not server.started:
        if platform.runtime is not None and platform.runtime.fatal.done():
            server.should_exit = True
        await asyncio.sleep(0.02)
    runtime = platform.runtime
    if runtime is None:
        return
    port = server.servers[0].sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    base = f"http://{shown}:{port}"
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold]{platform.registry.service}[/] serves on {base} (log: {settings.log.split('@')[-1]})")
    console.print(f"  docs     {base}/docs, {base}/asyncapi.json")
    console.print(f"  health   {base}/health/ready")
    console.print(f"  metrics  {base}/metrics, and on port {runtime.management_port} for probes")
    await runtime.fatal
    server.should_exit = True


async def _work(app: FastAPI, platform: Headrace) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            os._exit(1)
        if platform.runtime is not None:
            platform.runtime.begin_drain()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with app.router.lifespan_context(app):
        runtime = platform.runtime
        assert isinstance(runtime, Runtime)
        waiting = asyncio.create_task(stopping.wait())
        pending: set[asyncio.Future[Any]] = {waiting, runtime.fatal}
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    if platform.fatal is not None:
        raise platform.fatal
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
