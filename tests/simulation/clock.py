"""The clocks of a simulation, and its chance: `time.time()` and its kin tell the loop's virtual time while it runs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from headrace.engine import threads
from tests.simulation.loop import PROCESS, InlineThreads, Loop

BEGIN_UNIX_SECONDS = 1_750_000_000.0
UPTIME_SECONDS = 1_000.0


@contextmanager
def virtual_time(loop: Loop) -> Iterator[None]:
    """Replace the clocks of the module `time`, and the pool of threads, by those of the simulation."""

    def monotonic() -> float:
        return UPTIME_SECONDS + loop.time()

    def wall() -> float:
        process = PROCESS.get()
        return BEGIN_UNIX_SECONDS + loop.time() + (process.clock_offset if process is not None else 0.0)

    replaced: dict[str, Any] = {
        "monotonic": monotonic,
        "perf_counter": monotonic,
        "time": wall,
        "time_ns": lambda: int(wall() * 1e9),
    }
    with patch.multiple(time, **replaced), patch.object(threads, "ThreadPoolExecutor", InlineThreads):
        yield


@contextmanager
def chance_of_its_own(seed: int) -> Iterator[None]:
    """Let the functions of the module `random` draw from the seed in this thread; others draw what they drew before."""
    own, this_thread = random.Random(seed), threading.get_ident()

    def drawn(name: str) -> Callable[..., Any]:
        here, elsewhere = getattr(own, name), getattr(random, name)

        def draw(*given: Any) -> Any:
            return here(*given) if threading.get_ident() == this_thread else elsewhere(*given)

        return draw

    replaced: dict[str, Any] = {name: drawn(name) for name in ("random", "uniform", "sample", "shuffle")}
    with patch.multiple(random, **replaced):
        yield
