"""Named crash points: places of the engine's code at which a process of the machine dies or freezes if asked to.

They are put around the engine's functions by the application of the machine, in its processes alone: the product has
no line for them, and so they cost it nothing. A process looks at the file that `CRASH_POINT` names whenever it passes a
point; what is in it (`NAME ACTION`) is done once, by the process that renames the file first.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from tests.support.surrounding import surround

VARIABLE = "CRASH_POINT"
Action = Literal["kill", "stop"]
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


Needs = Literal["", "claims", "releases", "fail", "reject", "reminds", "tells", "good"]
"""What makes a process come to a point that it does not pass with each batch: that others leave it their claims, that
it is asked to end, or events that ask for something."""


class Point(NamedTuple):
    """A place in the code: before or after the call of a function, which is named as the module that calls it does."""

    when: Literal["before", "after"]
    module: str
    function: str
    needs: Needs = ""


POINTS = {
    "before a claim": Point("before", "headrace.engine.takeover", "claim", "claims"),
    "a claim is taken": Point("after", "headrace.engine.takeover", "claim", "claims"),
    "the dedupe window is read": Point("after", "headrace.engine.takeover", "read_window", "claims"),
    "left emits are to be published": Point("before", "headrace.emits.relay", "Relay.publish_unmarked", "claims"),
    "left emits are published": Point("after", "headrace.emits.relay", "Relay.publish_unmarked", "claims"),
    "states are to be loaded": Point("before", "headrace.engine.batch", "BatchProcessor._load_states"),
    "handlers are to run": Point("before", "headrace.engine.batch", "BatchProcessor._run"),
    "before BEGIN": Point("before", "headrace.engine.batch", "BatchTransaction.begin"),
    "after BEGIN": Point("after", "headrace.engine.batch", "BatchTransaction.begin"),
    "states are written": Point("after", "headrace.engine.commit", "write"),
    "events are parked": Point("after", "headrace.engine.commit", "park", "fail"),
    "a lane is closed": Point("after", "headrace.engine.commit", "close_lanes", "fail"),
    "dead letters are written": Point("after", "headrace.engine.commit", "store_dead_letters", "reject"),
    "a group is to be committed": Point("before", "headrace.engine.group_commit", "GroupCommit._write"),
    "a group is committed": Point("after", "headrace.engine.group_commit", "GroupCommit._write"),
    "the claim is to be moved": Point("before", "headrace.engine.claim", "Claim.advance"),
    "before COMMIT": Point("after", "headrace.engine.claim", "Claim.advance"),
    "after COMMIT": Point("before", "headrace.engine.batch", "BatchProcessor.remember"),
    "a batch is remembered": Point("after", "headrace.engine.batch", "BatchProcessor.remember"),
    "emits are to be published": Point("before", "headrace.emits.relay", "Relay._publish"),
    "emits are published": Point("after", "headrace.emits.relay", "Relay._publish"),
    "emits are to be marked": Point("before", "headrace.engine.tenure", "Tenure._mark_emits", "releases"),
    "timers are taken": Point("after", "headrace.engine.timers", "take_due", "reminds"),
    "timers are written": Point("after", "headrace.engine.commit", "write_timers", "reminds"),
    "effects are written": Point("after", "headrace.engine.commit", "start", "tells"),
    "ended effects are removed": Point("after", "headrace.engine.outside", "end", "tells"),
    "an answer is to be kept": Point("before", "headrace.effects.steps", "remember", "tells"),
    "an answer is kept": Point("after", "headrace.effects.steps", "remember", "tells"),
    "a route's events are to be written": Point("before", "headrace.outbox.transaction", "write_kept"),
    "a route's events are to be published": Point("before", "headrace.outbox.relay", "OutboxRelay._publish"),
    "a route's events are published": Point("after", "headrace.outbox.relay", "OutboxRelay._publish"),
    "sagas are followed": Point("after", "headrace.engine.commit", "follow", "good"),
    "a lane's run is counted": Point("after", "headrace.engine.retry", "Retries._count", "fail"),
    "claims are to be released": Point("before", "headrace.engine.worker", "release", "releases"),
    "claims are released": Point("after", "headrace.engine.worker", "release", "releases"),
}
"""Every one is killed at least once in a run that is long enough."""


def install() -> None:
    """Put every point into this process, if it belongs to the machine."""
    if VARIABLE in os.environ:
        file = Path(os.environ[VARIABLE])
        for name, point in POINTS.items():
            place(point, functools.partial(reach, file, name))


def arm(file: Path, name: str, action: Action) -> None:
    """Ask the processes that look at the file to die or to freeze at the point; what was asked before is forgotten."""
    hit_file(file).unlink(missing_ok=True)
    partial = file.with_suffix(".new")
    partial.write_text(f"{action} {name}")
    partial.rename(file)


def disarm(file: Path) -> bool:
    """Take back what was asked for. Returns False if it has happened."""
    file.unlink(missing_ok=True)
    return not hit_file(file).exists()


def hit_file(file: Path) -> Path:
    """Return what the file is called once a process has done what it asks for."""
    return file.with_suffix(".hit")


def reach(file: Path, name: str) -> None:
    """Pass the point: do what the file asks for, if it asks for it here."""
    try:
        action, _, wanted = file.read_text().partition(" ")
        if wanted != name:
            return
        file.rename(hit_file(file))
    except FileNotFoundError:
        return
    os.kill(os.getpid(), SIGNALS[action])


def place(point: Point, pass_: Callable[[], None]) -> None:
    """Call `pass_` before or after each call of the point's function."""

    @contextmanager
    def passing() -> Iterator[None]:
        if point.when == "before":
            pass_()
        yield
        if point.when == "after":
            pass_()

    surround(point.module, point.function, passing)
