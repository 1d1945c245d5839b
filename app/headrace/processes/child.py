"""A process of a group, as it sees its parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import suppress
from typing import NamedTuple

import msgspec


class Up(NamedTuple):
    """What a process says of itself once it is up."""

    service: str
    management_port: int


class Parent:
    """The socket between this process and its parent; from `watch` on, SIGTERM comes when the parent is gone."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)

    def watch(self) -> None:
        """Drain, as after a signal, once the parent has ended. Call it on the loop."""
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(self._socket)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(self._socket, ended)

    def tell(self, up: Up) -> None:
        """Say that this process is up. Nothing happens if the parent is gone."""
        with suppress(OSError):  # `watch` sees it too
            self._socket.send(json.dumps(up).encode() + b"\n")


def read_up(line: bytes) -> Up:
    """Return what a process said."""
    return msgspec.json.decode(line, type=Up)
