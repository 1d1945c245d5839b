"""Which runs of handlers share the process with others, and which have it for themselves.

If a process dies, each partition that was applying something may have been the cause, and each lane whose run had
begun. One event that ends its processes would so use up the attempts of innocent ones beside it. So what has died twice
at one place, and what has died in its lane, runs alone from then on: if the process dies once more, it was that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

ALONE_SECONDS = 3.0
"""How long a run that is to be alone waits for those that have begun, and for how long no other one begins after that.
A handler that hangs is no reason to hold up all others any longer: then it has company after all."""


class Company:
    """The runs of one process.

    ```
    others:  ──run──┤        ├──run──
    alone:       ├──┤──run───┤
    ```
    """

    def __init__(self) -> None:
        self._runs = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._next = asyncio.Lock()

    @asynccontextmanager
    async def enter(self, *, alone: bool) -> AsyncIterator[None]:
        """Run what is inside with others, or without, as far as `ALONE_SECONDS` allow it."""
        if alone:
            async with self._for_itself():
                yield
        else:
            while not self._is_open.is_set():
                await self._is_open.wait()
            self._begin()
            try:
                yield
            finally:
                self._end()

    @asynccontextmanager
    async def _for_itself(self) -> AsyncIterator[None]:
        await self._next.acquire()
        self._is_open.clear()
        end, has_company = None, False

        def have_company() -> None:
            nonlocal has_company
            has_company = True
            self._begin()
            self._open()

        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(ALONE_SECONDS):
                    await self._is_idle.wait()
            end = asyncio.get_running_loop().call_later(ALONE_SECONDS, have_company)
            yield
        finally:
            if end is not None:
                end.cancel()
            if has_company:
                self._end()
            else:
                self._open()

    def _begin(self) -> None:
        self._runs += 1
        self._is_idle.clear()

    def _end(self) -> None:
        self._runs -= 1
        if not self._runs:
            self._is_idle.set()

    def _open(self) -> None:
        """Let the others in, and behind them the next one that is to be alone."""
        self._is_open.set()
        self._next.release()
