"""The threads of one subscription's synchronous handlers: what hangs in them starves no other subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor

THREAD_NAME = "headrace-handlers"
"""How the names of these threads begin."""

ABANDONED_THREADS = 32
"""Threads of handlers that have not returned, at which the process is beyond repair."""


async def _ended(work: asyncio.Future[None]) -> None:
    await work


class HandlerThreads:
    """Runs functions in threads, a limited number at a time. A call that is given up on holds no place any more.

    Batches have so many places, runs of lanes beside them as many again, and lanes that run alone as well: those that
    hang leave all others theirs.
    """

    def __init__(self, subscription: str, threads: int) -> None:
        self._places, self._places_beside, self._places_alone = (asyncio.Semaphore(threads) for _ in range(3))
        self._executor = ThreadPoolExecutor(
            3 * threads + ABANDONED_THREADS, thread_name_prefix=f"{THREAD_NAME}-{subscription}"
        )
        self._abandoned: set[Future[None]] = set()

    @property
    def abandoned(self) -> int:
        """Threads that nobody waits for any more, and whose function has not returned."""
        return len(self._abandoned)

    @property
    def has_room(self) -> bool:
        """True if further calls may be given up on before their time."""
        return len(self._abandoned) < ABANDONED_THREADS // 4

    async def run(
        self,
        function: Callable[[], None],
        attend: Callable[[asyncio.Future[None]], Awaitable[None]] = _ended,
        *,
        is_beside: bool = False,
        is_alone: bool = False,
    ) -> None:
        """Wait for a place, run the function in a thread, and raise what `attend` does, which waits for it.

        Cancel: a function that runs already continues in its thread, which counts as abandoned until it returns. So
        does one that `attend` does not wait for any longer.
        """
        async with self._places_alone if is_alone else self._places_beside if is_beside else self._places:
            running = self._executor.submit(function)
            try:
                await attend(asyncio.wrap_future(running))
            except BaseException:
                if running.running():
                    self._abandoned.add(running)
                    running.add_done_callback(self._abandoned.discard)
                raise

    def stop(self) -> None:
        """Take no more work. A thread that hangs is left behind."""
        self._executor.shutdown(wait=False, cancel_futures=True)
