"""What `headrace run` says once it serves."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence

from fastapi import FastAPI
from rich.console import Console
from rich.markup import escape

from headrace.http.addresses import announced
from headrace.loading import running
from headrace.platform import Headrace
from headrace.processes.child import Parent, Up
from headrace.settings import Settings
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace")


class Announcement:
    """Says where everything is; a process of a group tells its parent instead."""

    def __init__(self, app: FastAPI, platform: Headrace, parent: Parent | None) -> None:
        self._app = app
        self._platform = platform
        self._parent = parent

    def watch_parent(self) -> None:
        """Drain when the parent is gone, if there is one. Call it on the loop."""
        if self._parent is not None:
            self._parent.watch()

    def __call__(self, address: str | None) -> None:
        """Say it; `address` is None for a process that serves no HTTP."""
        service, settings, port = self._platform.registry.service, self._platform.settings, self._management_port
        if self._parent is not None:
            self._parent.tell(Up(service, port))
            return
        places = management_places(settings, port)
        if address is not None:
            management = places["health"].removesuffix("/health/ready")
            places = announced(self._app, address) | {"probes": management}
        say(service, settings, address, places)

    @property
    def _management_port(self) -> int:
        return running(self._platform).management_port


def say(service: str, settings: Settings, address: str | None, places: Mapping[str, str], processes: int = 1) -> None:
    """Say where everything is: in a few lines on a terminal, as one entry of the log elsewhere."""
    if not (settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())):
        logger.info(
            "serving", service=service, role=settings.role, address=address, processes=processes, **dict(places)
        )
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    work = f"serves on {address}" if address is not None else f"works as {settings.role}"
    several = f" with {processes} processes" if processes > 1 else ""
    console.print(f"[bold]{service}[/] " + escape(f"{work}{several} (log: {settings.log})"))
    for name, place in places.items():
        console.print(escape(f"  {name:<8} {place}"))


def management_places(settings: Settings, port: int) -> dict[str, str]:
    """Return where the management port's pages are."""
    management = f"http://{settings.management_host}:{port}"
    return {"health": f"{management}/health/ready", "metrics": f"{management}/metrics"}


def address_of(host: str, listeners: Sequence[socket.socket]) -> str:
    """Return the address that is served on."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listeners[0].getsockname()[1]}"
