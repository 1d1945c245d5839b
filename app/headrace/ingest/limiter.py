"""Bounds how many requests are taken in at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headrace.http.problems import Problem


class Place:
    """One request's place. It outlives the request if `publishing` does."""

    def __init__(self) -> None:
        self.publishing: asyncio.Future[Any] | None = None
        """The publish that the request waits for."""

    def hold(self, publishing: asyncio.Future[Any]) -> None:
        """Keep the place until the publish ends."""
        self.publishing = publishing


class Limiter:
    """Counts the requests whose body is read or whose events wait for the log; one per platform."""

    def __init__(self) -> None:
        self._taken = 0

    @contextmanager
    def place(self, most: int) -> Iterator[Place]:
        """Hold a place from reading the body to the end of the publish. Raises: Problem 429 (all are taken)."""
        if self._taken >= most:
            raise Problem(
                429,
                "rate-limited",
                "Too many requests",
                f"{self._taken} requests are in flight (HEADRACE_INGEST_MAX_IN_FLIGHT); nothing was accepted.",
                headers={"Retry-After": "1"},
            )
        self._taken += 1
        place = Place()
        try:
            yield place
        finally:
            if place.publishing is None or place.publishing.done():
                self._taken -= 1
            else:
                place.publishing.add_done_callback(self._free)

    def _free(self, _: asyncio.Future[Any]) -> None:
        self._taken -= 1
