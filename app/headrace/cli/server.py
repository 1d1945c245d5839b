"""uvicorn as `headrace run` needs it: its own messages and exit codes, and a drain that begins with the signal."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from headrace.errors import ConfigurationError
from headrace.http.connection import bounded
from headrace.loading import running
from headrace.platform import Headrace
from headrace.runtime import Runtime
from headrace.supervisor import CUT_SHORT, end_process

BACKLOG = 2_048
"""How many connections wait until the application takes them; uvicorn's own number."""
AT_ONCE = 16
"""New connections that are taken in one turn of the event loop."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of the host. Raises: ConfigurationError (port, host).

    Bound before the platform starts, so that a taken port costs no start of a database. A client that comes during the
    start waits for its answer: a process that says that it is ready refuses nobody.
    """
    listeners: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], port, *address[2:]))
            listener.listen(BACKLOG)
            port = listener.getsockname()[1]  # a free one is the same for every address of the host
    except UnicodeError as error:
        raise ConfigurationError(f"--host {host} is no name that a host can have; name one of this machine.") from error
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise _refused(host, port, error) from error
    return listeners


def several_times(listeners: Sequence[socket.socket]) -> list[socket.socket]:
    """Return AT_ONCE sockets for each listener, which share its port: the server closes them.

    uvloop takes one connection of each in a turn of its loop. In a flood, whose turns are long, thousands would wait in
    the kernel, and some would be turned away there and come again seconds later.
    """
    return [each for listener in listeners for each in (listener, *(listener.dup() for _ in range(AT_ONCE - 1)))]


def cut_short() -> None:
    """End the process at once, as a second signal asks; the next owner repeats what was not committed."""
    end_process(CUT_SHORT, "cut short by a second signal")


class Server(uvicorn.Server):
    """Serves the application until a signal comes, or until its platform cannot work any more."""

    def __init__(self, app: FastAPI, platform: Headrace, announce: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded(platform.settings.ingest),
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=max(1, round(platform.settings.engine.drain_seconds)),
                lifespan="on",
            )
        )
        self._platform = platform
        self._announce = announce
        self.is_up = False
        """True once it has served, even if it was told to stop at once."""
        self.runtime: Runtime | None = None
        """The platform that ran, also after its end."""
        self._watching: asyncio.Task[None] | None = None
        logging.getLogger("uvicorn.error").addFilter(self._is_worth_telling)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen. If that fails, this one ends; uvicorn's own would exit the process."""
        try:
            await super().startup(sockets)
            self.runtime = running(self._platform)
        except SystemExit:
            self.should_exit = True
        except ConfigurationError as error:
            self._platform.fatal = error
            self.should_exit = True
        else:
            self.is_up = True
            self._watching = asyncio.create_task(self._watch(self.runtime))
        if not self.should_exit:
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let requests in flight end, then drain the platform."""
        if self._watching is not None:
            self._watching.cancel()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain at the first signal, so that open streams end and readiness is off.

        uvicorn's own handler would raise the signal again at the end: exit code 143 instead of 0.
        """
        if self.should_exit:
            cut_short()
        self.should_exit = True
        if self._platform.runtime is not None:
            self._platform.runtime.begin_drain()

    async def _watch(self, runtime: Runtime) -> None:
        ends: set[asyncio.Future[Any]] = {runtime.fatal, runtime.failed}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        runtime.begin_drain()
        self.should_exit = True

    def _is_worth_telling(self, record: logging.LogRecord) -> bool:
        """Drop what this command says itself: uvicorn's progress, and a failed start that is one sentence."""
        return record.levelno >= logging.WARNING and self._platform.fatal is None


def _refused(host: str, port: int, error: OSError) -> ConfigurationError:
    if error.errno == errno.EADDRINUSE:
        return ConfigurationError(f"--port {port} is taken by another process; choose another, or 0 for a free one.")
    if error.errno == errno.EACCES:
        return ConfigurationError(f"--port {port} needs rights that are missing; choose one above 1023.")
    return ConfigurationError(f"--host {host} cannot be served on: {error.strerror}; name an address of this machine.")
