"""`headrace run --workers N`: the parent of the processes."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import ExitStack

from headrace.cli.announcement import address_of, management_places, say
from headrace.cli.server import listen
from headrace.errors import ConfigurationError
from headrace.processes.child import Up
from headrace.processes.group import Group
from headrace.processes.pages import GroupPages
from headrace.settings import Settings
from headrace.telemetry.management import open_port


def run_group(target: str, settings: Settings, host: str, port: int, workers: int) -> int:
    """Run the processes until a signal; return the exit code.

    Raises: ConfigurationError (processes cannot share the log or the database; a port is taken).
    """
    _refuse_alone(settings, workers)
    listeners = listen(host, port) if settings.role != "worker" else []
    return asyncio.run(_run(["run", target, "--host", host], settings, host, listeners, workers))


async def _run(command: list[str], settings: Settings, host: str, listeners: list[socket.socket], workers: int) -> int:
    with ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        pages = GroupPages(workers)
        stack.callback(pages.close)
        management, port = open_port(
            settings.management_host,
            settings.management_port,
            pages.answer,
            may_move=settings.may_move_management_port,
        )
        stack.callback(management.stop)
        group = Group(command, workers, listeners, pages)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, group.stop)
        address = address_of(host, listeners) if listeners else None

        def announce(up: Up) -> None:
            say(up.service, settings, address, management_places(settings, port), workers)

        return await group.run(announce)


def _refuse_alone(settings: Settings, workers: int) -> None:
    if not settings.is_kafka:
        raise ConfigurationError(
            f"--workers {workers} needs a log that processes share, and HEADRACE_LOG={settings.log} is one process's "
            "own; set HEADRACE_LOG=kafka://host:port, or leave --workers out."
        )
    if settings.is_database_embedded:
        raise ConfigurationError(
            f"--workers {workers} needs a Postgres that processes share, and the embedded one is one process's own; "
            "set HEADRACE_DATABASE=postgresql://user@host/name, or leave --workers out."
        )
