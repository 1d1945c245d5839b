"""Bounds how many requests are taken in at once, and how much they bring.

An event takes 3 to 17 times the bytes of its body until the log has it, the more the smaller it is.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from headrace.http.problems import Problem


class Limiter:
    """Counts the requests whose body is read or whose events wait for the log; one per platform."""

    def __init__(self) -> None:
        self.taken = 0
        self.bytes = 0
        """Of the bodies of those requests."""

    def place(self, most: int, most_bytes: int) -> Place:
        """Return a place to hold from reading the body to the end of the publish: `with limiter.place(...) as place`.

        Raises: Problem 429 (all are taken), at the beginning of the block.
        """
        return Place(self, most, most_bytes)


class Place:
    """One request's place. It outlives the request if `publishing` does."""

    __slots__ = ("_bytes", "_limiter", "_most", "_most_bytes", "publishing")

    def __init__(self, limiter: Limiter, most: int, most_bytes: int) -> None:
        self._limiter = limiter
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self.publishing: asyncio.Future[Any] | None = None
        """The publish that the request waits for."""

    def hold(self, publishing: asyncio.Future[Any]) -> None:
        """Keep the place until the publish ends."""
        self.publishing = publishing

    def bring(self, size: int) -> None:
        """Count bytes of the body as they arrive. Raises: Problem 429 (with those of others they are too many)."""
        limiter = self._limiter
        before = limiter.bytes
        if before + size > self._most_bytes and before > self._bytes:
            raise _too_many(f"requests of {before:,} bytes are in flight (HEADRACE_INGEST_MAX_IN_FLIGHT_BYTES)")
        limiter.bytes = before + size
        self._bytes += size

    def __enter__(self) -> Self:
        taken = self._limiter.taken
        if taken >= self._most:
            raise _too_many(f"{taken} requests are in flight (HEADRACE_INGEST_MAX_IN_FLIGHT)")
        self._limiter.taken = taken + 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.publishing is None or self.publishing.done():
            self._free()
        else:
            self.publishing.add_done_callback(self._free)

    def _free(self, _: asyncio.Future[Any] | None = None) -> None:
        self._limiter.taken -= 1
        self._limiter.bytes -= self._bytes


def _too_many(what: str) -> Problem:
    return Problem(
        429, "rate-limited", "Too many requests", f"{what}; nothing was accepted.", headers={"Retry-After": "1"}
    )
