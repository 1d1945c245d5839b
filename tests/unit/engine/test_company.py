"""Runs that have their process for themselves."""

from __future__ import annotations

import asyncio

import pytest

from headrace.engine.company import Company
from tests.support.waiting import until


class Visit:
    """A run that stays until it is let go."""

    def __init__(self, company: Company, *, alone: bool) -> None:
        self.is_in = False
        self._may_go = asyncio.Event()
        self._task = asyncio.create_task(self._stay(company, alone))

    async def _stay(self, company: Company, alone: bool) -> None:
        async with company.enter(alone=alone):
            self.is_in = True
            await self._may_go.wait()
        self.is_in = False

    async def go(self) -> None:
        self._may_go.set()
        await self._task

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


@pytest.fixture
def company(monkeypatch: pytest.MonkeyPatch) -> Company:
    monkeypatch.setattr("headrace.engine.company.ALONE_SECONDS", 60.0)
    return Company()


async def begin(company: Company, *, alone: bool = False, waits: bool = False) -> Visit:
    """Return a run that has begun, or has come to where it waits."""
    visit = Visit(company, alone=alone)
    for _ in range(10):
        await asyncio.sleep(0)
    assert visit.is_in is not waits
    return visit


async def test_run_that_is_alone_waits_for_others_and_they_for_it(company: Company) -> None:
    first, second = await begin(company), await begin(company)
    alone = await begin(company, alone=True, waits=True)
    late = await begin(company, waits=True)
    await first.go()
    assert not alone.is_in
    await second.go()
    await until(lambda: alone.is_in, "the others have gone")
    assert not late.is_in
    await alone.go()
    await until(lambda: late.is_in, "it has gone")
    await late.go()


async def test_only_one_run_is_alone_at_a_time(company: Company) -> None:
    first = await begin(company, alone=True)
    second = await begin(company, alone=True, waits=True)
    await first.go()
    await until(lambda: second.is_in, "the first has gone")
    await second.go()
    await (await begin(company)).go()


async def test_run_that_is_cancelled_while_it_waits_lets_others_in(company: Company) -> None:
    other = await begin(company)
    alone = await begin(company, alone=True, waits=True)
    late = await begin(company, waits=True)
    await alone.cancel()
    await until(lambda: late.is_in, "nobody wants to be alone any more")
    await late.go()
    await other.go()
    await (await begin(company, alone=True)).go()


async def test_nobody_is_held_up_for_ever(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.engine.company.ALONE_SECONDS", 0.01)
    hangs = await begin(company)
    alone = Visit(company, alone=True)
    await until(lambda: alone.is_in, "it has waited long enough for the one that hangs")
    late = Visit(company, alone=False)
    await until(lambda: late.is_in, "and the others for it")
    for each in (hangs, alone, late):
        await each.go()


async def test_runs_that_want_to_be_alone_wait_for_none_for_ever(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.engine.company.ALONE_SECONDS", 0.01)
    hangs = Visit(company, alone=True)
    await until(lambda: hangs.is_in, "nobody else is there")
    second = Visit(company, alone=True)
    await until(lambda: second.is_in, "it has waited long enough for the one that hangs")
    await second.go()
    monkeypatch.setattr("headrace.engine.company.ALONE_SECONDS", 60.0)
    third = await begin(company, alone=True, waits=True)
    await hangs.go()
    await until(lambda: third.is_in, "the one that hung has gone")
    late = await begin(company, waits=True)
    await third.go()
    await until(lambda: late.is_in, "it has gone")
    await late.go()
