"""Bounds how many requests are taken in at once."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from headrace.http.problems import Problem


class Limiter:
    """Counts the requests whose body is read or whose events wait for the log; one per platform."""

    def __init__(self) -> None:
        self.taken = 0

    def place(self, most: int) -> Place:
        """Return a place to hold from reading the body to the end of the publish: `with limiter.place(most) as place`.

        Raises: Problem 429 (all are taken), at the beginning of the block.
        """
        return Place(self, most)


class Place:
    """One request's place. It outlives the request if `publishing` does."""

    __slots__ = ("_limiter", "_most", "publishing")

    def __init__(self, limiter: Limiter, most: int) -> None:
        self._limiter = limiter
        self._most = most
        self.publishing: asyncio.Future[Any] | None = None
        """The publish that the request waits for."""

    def hold(self, publishing: asyncio.Future[Any]) -> None:
        """Keep the place until the publish ends."""
        self.publishing = publishing

    def __enter__(self) -> Self:
        taken = self._limiter.taken
        if taken >= self._most:
            raise Problem(
                429,
                "rate-limited",
                "Too many requests",
                f"{taken} requests are in flight (HEADRACE_INGEST_MAX_IN_FLIGHT); nothing was accepted.",
                headers={"Retry-After": "1"},
            )
        self._limiter.taken = taken + 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.publishing is None or self.publishing.done():
            self._limiter.taken -= 1
        else:
            self.publishing.add_done_callback(self._free)

    def _free(self, _: asyncio.Future[Any]) -> None:
        self._limiter.taken -= 1
