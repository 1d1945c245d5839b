"""A Python that has imported the platform, and forks a `headrace ARGUMENT...` for each request.

python -P tests/support/launcher.py    # requests come on the socket that is its standard input

Importing takes most of a second of processor time, which every service and command of the tests would pay again. A fork
has the environment, the folder and the streams of its request, and ends as an interpreter ends.

A request is five files, sent over the socket: a JSON object (`arguments`, `environment`, `folder`), the three standard
streams, and a pipe that is told the process id and later the exit code, in `BYTES` each.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import warnings
from contextlib import suppress

import uvloop  # noqa: F401 - this and those below: what `headrace run` imports when it is called
from uvicorn.lifespan import on  # noqa: F401
from uvicorn.protocols.http import httptools_impl  # noqa: F401

import headrace.cli
import headrace.log.kafka  # noqa: F401
from headrace.__main__ import main

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pydantic.v1  # noqa: F401 - FastAPI imports it for an application's first route

FILES = 5
BYTES = 12
PATH = [place for place in sys.path if place not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]


def serve(requests: socket.socket) -> None:
    """Fork for each request, and tell how each fork ended. Returns in the forks only; ends with the socket."""
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the forks and for pytest, which ends the socket
    signal.set_wakeup_fd(waking)
    running: dict[int, int] = {}
    while True:
        readable, _, _ = select.select([requests.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            _reap(running)
        if requests.fileno() in readable:
            message, files, _, _ = socket.recv_fds(requests, 1, FILES)
            if not message:
                sys.exit()
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for mine in (woken, waking, requests.detach(), *running.values()):
                    os.close(mine)
                _become(*files)
                return
            *others, told = files
            for file in others:
                os.close(file)
            _tell(told, pid)
            running[pid] = told


def _reap(running: dict[int, int]) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            told = running.pop(pid)
            _tell(told, os.waitstatus_to_exitcode(status))
            os.close(told)


def _tell(told: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(told, f"{number:{BYTES}}".encode())


def _become(asked: int, *streams_and_told: int) -> None:
    """Make this fork what was asked for, up to the call of its main()."""
    with open(asked, encoding="utf-8") as file:
        request = json.load(file)
    for number, stream in enumerate(streams_and_told[:3]):
        os.dup2(stream, number)
    for file_number in streams_and_told:
        os.close(file_number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:] = [request["folder"], *os.environ.get("PYTHONPATH", "").split(os.pathsep), *PATH]
    sys.argv = ["headrace", *request["arguments"]]


if __name__ == "__main__":
    gc.freeze()  # so that a fork's collector does not write to, and so copy, all that was imported
    serve(socket.socket(fileno=os.dup(0)))
    main()
