"""Ends a process that is beyond repair, also if its event loop is blocked or its drain hangs.

```
running ── Health.fail(), or the loop is silent ─▶ told: readiness off, drain, exit code 70
                                                     │ the loop does not answer for 5 s
                                                     │ the drain takes longer than all its steps may
                                                     │ the process is still there 10 s after the drain
                                                     └─▶ ended at once, exit code 70
```
A thread watches, since it must work if the loop does not. It cannot run while a C extension holds the interpreter's
lock; only a probe of the management port, which does not answer either, finds that.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from headrace.telemetry.health import Health
from headrace.telemetry.logging import get_logger

BEYOND_REPAIR = 70
"""The exit code of a process that cannot work any more (EX_SOFTWARE): a supervisor such as systemd starts another."""
CUT_SHORT = 1
"""The exit code of a stop that left something unfinished, and of a set-up that a person must change."""
POLL_SECONDS = 0.25
ANSWER_SECONDS = 5.0
"""How long the loop has to take notice; it does so at its next turn unless something blocks it."""
LINGER_SECONDS = 10.0
"""How long the process may take to end after its drain: the application's own clean-up runs in it."""
LAST_WORDS_SECONDS = 1.0

logger = get_logger("headrace")


class Supervisor:
    """Watches the health of one running platform.

    `on_failure` is called on the loop with the sentence of the failure. If `ends_process`, the process is ended as well
    when it does not end by itself; `limit_seconds` returns how long its drain may take.
    """

    def __init__(
        self,
        health: Health,
        on_failure: Callable[[str], None],
        limit_seconds: Callable[[], float],
        *,
        ends_process: bool,
    ) -> None:
        self._health = health
        self._on_failure = on_failure
        self._limit_seconds = limit_seconds
        self._ends_process = ends_process
        self._loop = asyncio.get_running_loop()
        self._drained = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="headrace-supervisor", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def drained(self) -> None:
        """Note that the platform has stopped: a healthy process may now end as it likes."""
        self._drained.set()

    def _watch(self) -> None:
        while not self._drained.wait(POLL_SECONDS):
            if failures := self._health.failures():
                reason, detail = next(iter(failures.items()))
                self._end(f"{detail or reason}".rstrip("."))
                return

    def _end(self, failure: str) -> None:
        heard = threading.Event()
        limit = self._limit_seconds()

        def tell() -> None:
            heard.set()
            self._on_failure(failure)

        try:
            self._loop.call_soon_threadsafe(tell)
        except RuntimeError:  # the loop is closed already
            heard.set()
        if not self._ends_process:
            return
        if not heard.wait(ANSWER_SECONDS):
            end_process(BEYOND_REPAIR, f"the event loop is blocked, and the process is beyond repair: {failure}")
        if not self._drained.wait(limit):
            end_process(BEYOND_REPAIR, f"the drain hangs, and the process is beyond repair: {failure}")
        threading.Event().wait(LINGER_SECONDS)
        end_process(BEYOND_REPAIR, f"the process did not end after its drain, and it is beyond repair: {failure}")


def end_process(code: int, message: str, **facts: object) -> NoReturn:
    """End the process at once, after one entry in the log; nothing that hangs can hold it up."""

    def say() -> None:
        logger.error(message, exit_code=code, **facts)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()

    last_words = threading.Thread(target=say, name="headrace-last-words", daemon=True)  # a lock may be held for good
    last_words.start()
    last_words.join(LAST_WORDS_SECONDS)
    os._exit(code)


def leave_when_failed(failed: asyncio.Future[str]) -> None:
    """Ask the server that runs this application to stop once the future is set, and let it exit with code 70.

    Call it in the main thread, on the loop.
    """
    failed.add_done_callback(_leave)


def _leave(failed: asyncio.Future[str]) -> None:
    if failed.cancelled():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        end_process(BEYOND_REPAIR, "nothing here handles SIGTERM, so the process ends without a drain")
    signal.raise_signal(signal.SIGTERM)
    # uvicorn raises the signal again at its end, which would hide the code. Blocked in this thread it does nothing, and
    # one that comes from outside is still taken by another thread.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    atexit.register(end_process, BEYOND_REPAIR, "the process is beyond repair and ends")
