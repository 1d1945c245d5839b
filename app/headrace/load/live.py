"""What a person sees while a run goes on: a bar on a terminal, a line per step elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from headrace.load.pacing import Pacing
from headrace.load.results import StepResult
from headrace.load.tables import step_line
from headrace.load.watching import Watching


class Live:
    """Shows a run on a console; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(20),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[seen]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._began = 0.0
        self._said = ""

    def __enter__(self) -> Live:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, name: str, rate: float, seconds: float) -> None:
        """Begin a bar."""
        self._begin(f"{name}: {rate:,.0f} events/s", seconds)
        if not self._console.is_terminal:
            self._console.print(f"{name}: {rate:,.0f} events/s for {seconds:g} s")

    def progress(self, pacing: Pacing, watching: Watching) -> None:
        """Move the bar."""
        assert self._task is not None
        elapsed = max(0.001, time.monotonic() - self._began)
        last = watching.samples[-1] if watching.samples else None
        lag = f"{last.lag:,}" if last is not None and last.lag is not None else "?"
        failed = pacing.refused + len(pacing.doubtful)
        seen = f"{pacing.accepted / elapsed:,.0f}/s accepted, lag {lag}, {pacing.in_flight} in flight, {failed} failed"
        self._bar.update(self._task, completed=elapsed, seen=seen)

    def ended(self, result: StepResult) -> None:
        """Print what a step came to."""
        self._console.print(step_line(result))

    def working(self, what: str, done: int, total: int) -> None:
        """Show work that is not a step."""
        if what != self._said:
            self._said = what
            self._begin(what, total)
            if not self._console.is_terminal:
                self._console.print(what)
        assert self._task is not None
        self._bar.update(self._task, completed=done, seen=f"{done:,} of {total:,}" if total > 1 else "")

    def _begin(self, what: str, total: float) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._began = time.monotonic()
        self._task = self._bar.add_task(what, total=total, seen="")
