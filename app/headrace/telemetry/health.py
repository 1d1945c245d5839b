"""Whether this process is alive and ready, as a set of reasons against it that any thread may add and clear."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

LOOP_SILENT_SECONDS = 60.0
"""A loop that has not ticked for longer is beyond repair; one that is blocked for less usually comes back."""

STARTING = "starting"
LOOP_SILENT = "loop_silent"


class Report(NamedTuple):
    """The answer to a probe: an HTTP status and a JSON body."""

    status: int
    body: bytes


class Health:
    """The reasons against being alive or ready. Reasons are stable words; details are sentences without secrets.

    Liveness never depends on Kafka, Postgres or lag, and readiness never on owning a partition: Kubernetes acts on
    the probes, and an outage must not restart or unpublish every pod at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.started = False
        """Set once the configuration is valid, the modules are imported and the listeners are up."""
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, str] = {}
        self._obstacles: dict[str, str] = {}
        self._ticked_at: float | None = None

    def not_ready(self, reason: str, detail: str = "") -> None:
        """Name a reason against being ready; the same reason again replaces its detail."""
        with self._lock:
            self._obstacles[reason] = detail

    def ready(self, reason: str) -> None:
        """Clear one reason; nothing happens if it was not named."""
        with self._lock:
            self._obstacles.pop(reason, None)

    def fail(self, reason: str, detail: str = "") -> None:
        """Declare the process beyond repair: it drains and ends with exit code 70 (see `supervisor`), whatever comes.

        Any thread may call it. `detail` is a sentence without secrets; a second reason does not replace the first.
        """
        with self._lock:
            self._failures.setdefault(reason, detail)

    def loop_ticked(self) -> None:
        """Note that the event loop is running."""
        self._ticked_at = self._clock()

    def loop_stopped(self) -> None:
        """Note that the event loop was asked to end: its silence means nothing from now on."""
        self._ticked_at = None

    def failures(self) -> dict[str, str]:
        """Return why the process is beyond repair, as reason and detail; empty while it is not."""
        return self._failing()

    def liveness(self) -> tuple[bool, list[str]]:
        """Return whether the process can continue, and the reasons if it cannot."""
        reasons = list(self._failing())
        return not reasons, reasons

    def readiness(self) -> tuple[bool, list[str]]:
        """Return whether the process can serve, and the reasons if it cannot."""
        reasons = list(self._hindering())
        return not reasons, reasons

    def live_report(self, *, is_startup: bool = False) -> Report:
        """Answer the liveness probe, or the startup probe, which also waits for `started`."""
        reasons = self._failing()
        if is_startup and not self.started:
            reasons[STARTING] = ""
        return _report("live", reasons)

    def ready_report(self) -> Report:
        """Answer the readiness probe."""
        return _report("ready", self._hindering())

    def _failing(self) -> dict[str, str]:
        with self._lock:
            reasons = dict(self._failures)
        ticked_at = self._ticked_at
        if ticked_at is not None and (silent := self._clock() - ticked_at) > LOOP_SILENT_SECONDS:
            reasons[LOOP_SILENT] = f"The event loop has not run for {silent:.0f} s."
        return reasons

    def _hindering(self) -> dict[str, str]:
        with self._lock:
            reasons = dict(sorted(self._obstacles.items()))
        return reasons if self.started else {STARTING: "", **reasons}


def _report(question: str, reasons: dict[str, str]) -> Report:
    body: dict[str, object] = {question: not reasons, "reasons": list(reasons)}
    if details := {reason: detail for reason, detail in reasons.items() if detail}:
        body["details"] = details
    return Report(503 if reasons else 200, json.dumps(body).encode())
