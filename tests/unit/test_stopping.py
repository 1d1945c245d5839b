"""A step of a stop that fails, hangs or is cancelled is logged, and the next one follows."""

from __future__ import annotations

import asyncio

import pytest

from headrace.stopping import Stops, describe_task, end_tasks, finish


async def test_result_of_a_step_is_returned() -> None:
    assert await finish("answer", asyncio.sleep(0, 42), 5) == 42


async def test_step_that_fails_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> bool:
        raise RuntimeError("no more ink")

    assert await finish("pen", fail(), 5) is None

    assert caplog.text.count("a step of the stop failed") == 1
    assert "no more ink" in caplog.text


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


async def test_parts_end_in_the_reverse_of_their_start() -> None:
    ended: list[str] = []

    async def end(what: str) -> None:
        ended.append(what)

    stops = Stops()
    for what in ("database", "log"):
        stops.push(what, lambda what=what: end(what), seconds=1)  # type: ignore[misc]
    stops.push("watch", lambda: ended.append("watch"), seconds=1)

    assert await stops.unwind() == set()
    assert ended == ["watch", "log", "database"]
    assert await stops.unwind() == set()
    assert ended == ["watch", "log", "database"], "a part ends once"


async def test_parts_that_fail_keep_no_other_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def hang() -> None:
        await asyncio.Event().wait()

    async def cut_short() -> bool:
        return False

    stops = Stops()
    stops.push("first", lambda: ended.append("first"), seconds=1)
    stops.push("broken", lambda: 1 / 0, seconds=1)
    stops.push("endless", hang, seconds=0.01)
    stops.push("drain", cut_short, seconds=1)

    assert await stops.unwind() == {"broken", "endless", "drain"}
    assert ended == ["first"]
    assert "ZeroDivisionError" in caplog.text


def test_limit_is_the_sum_of_all_steps() -> None:
    stops = Stops()
    assert stops.limit_seconds == 0
    stops.push("log", lambda: None, seconds=6)
    stops.push("drain", lambda: None, seconds=30)
    assert stops.limit_seconds == 38  # each may take a second to be cancelled


async def test_tasks_that_refuse_to_end_are_returned_and_named() -> None:
    entered, is_over = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        entered.set()
        while not is_over.is_set():
            try:
                await is_over.wait()
            except asyncio.CancelledError:
                continue

    async def outer() -> None:
        await stubborn()

    obedient = asyncio.create_task(is_over.wait())
    task = asyncio.create_task(outer(), name="worker notes/0")
    await entered.wait()

    assert await end_tasks({task, obedient}, 0.05) == {task}
    assert obedient.cancelled()
    assert describe_task(task) == f"worker notes/0 in {stubborn.__qualname__}"
    is_over.set()
    await task
