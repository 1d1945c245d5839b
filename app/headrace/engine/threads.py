"""The threads of one subscription's synchronous handlers: what hangs in them starves no other subscription."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

THREAD_NAME = "handlers"
"""How the names of these threads begin."""


class HandlerThreads:
    """A pool that is replaced when one of its threads is abandoned, so that a handler that hangs holds one thread."""

    def __init__(self, subscription: str, threads: int) -> None:
        self._name = f"{THREAD_NAME}-{subscription}"
        self._threads = threads
        self.executor = self._new()
        self.abandoned = 0
        """Threads that were given up on, since the start."""

    def abandon_one(self) -> None:
        """Take a new pool: the old one ends what it was given, and its hanging thread is waited for by nobody."""
        self.abandoned += 1
        old, self.executor = self.executor, self._new()
        old.shutdown(wait=False)

    def stop(self) -> None:
        """Take no more work. A thread that hangs is left behind."""
        self.executor.shutdown(wait=False, cancel_futures=True)

    def _new(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
