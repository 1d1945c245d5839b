"""A step of a stop that fails, hangs or is cancelled is logged, and the next one follows."""

from __future__ import annotations

import asyncio

import pytest

from headrace.stopping import attempt, finish


async def test_result_of_a_step_is_returned() -> None:
    assert await finish("answer", asyncio.sleep(0, 42), 5) == 42


async def test_step_that_fails_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> bool:
        raise RuntimeError("no more ink")

    assert await finish("pen", fail(), 5) is None
    attempt("quill", lambda: 1 / 0)

    assert caplog.text.count("a step of the stop failed") == 2
    assert "no more ink" in caplog.text and "ZeroDivisionError" in caplog.text


async def test_step_that_takes_too_long_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    async def hang() -> bool:
        try:
            return await asyncio.Event().wait()
        finally:
            ended.set()

    assert await finish("endless", hang(), 0.01) is None

    assert ended.is_set()
    assert "took too long" in caplog.text


async def test_step_that_cancels_itself_does_not_cancel_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    async def give_up() -> bool:
        raise asyncio.CancelledError

    assert await finish("weary", give_up(), 5) is None

    assert "was cancelled" in caplog.text
