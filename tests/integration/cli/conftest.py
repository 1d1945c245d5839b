"""A small service in a folder of its own, and how to start it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from tests.support.service import Service
from tests.support.small_app import write_small_app

Start = Callable[..., Awaitable[Service]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a service; it is gone at the end, whatever became of it."""
    started: list[Service] = []

    async def start_one(
        settings: Mapping[str, str], app: str = "small:app", role: str = "all", *, is_quick: bool = True
    ) -> Service:
        service = Service(tmp_path, settings, app=app, role=role)
        started.append(service)
        await service.start(is_quick=is_quick)
        return service

    yield start_one
    for service in started:
        await service.stop()


@pytest.fixture
def folder(tmp_path: Path, topic_name: str) -> Path:
    """A folder with a small application in `small.py`, whose topic is this test's own."""
    write_small_app(tmp_path, topic_name)
    return tmp_path
