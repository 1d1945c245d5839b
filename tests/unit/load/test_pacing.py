"""The loop of sends is open: a slow target changes neither when sends begin nor what a latency counts from."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence

from headrace.load.pacing import Pacing
from headrace.load.sender import Outcome
from headrace.load.workload import Expected, Made, Workload, wallets
from tests.support.waiting import until


class Scripted:
    """Answers with one outcome after the other; holds the answers back until it is released."""

    def __init__(self, *outcomes: Outcome, is_held: bool = False) -> None:
        self.outcomes = list(outcomes)
        self.begun = 0
        self.released = asyncio.Event()
        if not is_held:
            self.released.set()

    async def send(self, events: Sequence[Made]) -> Outcome:
        self.begun += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        await self.released.wait()
        return outcome


ACCEPTED = Outcome("202", is_accepted=True)
BUSY = Outcome("503", is_in_doubt=True, retry_after_seconds=0.0)


def pacing(sender: Scripted, *, honours_retry_after: bool = False) -> tuple[Pacing, Expected]:
    expected = Expected()
    make = Workload("r", wallets(), 10, 1).make
    return Pacing(sender, make, expected, 2, honours_retry_after=honours_retry_after), expected


async def test_sends_begin_on_schedule_though_no_answer_comes() -> None:
    sender = Scripted(ACCEPTED, is_held=True)
    paced, expected = pacing(sender)
    running = asyncio.create_task(paced.run(array("d", [0.0, 0.001, 0.002, 0.003])))
    await until(lambda: sender.begun == 4, "every send has begun")
    assert (paced.in_flight, paced.accepted, expected.events) == (4, 0, 0)
    sender.released.set()
    await running
    assert (paced.accepted, expected.events, paced.in_flight) == (8, 8, 0)


async def test_latency_counts_from_when_the_send_was_due() -> None:
    """Sends that are overdue at the begin go out at once, with the whole wait in their latency."""
    paced, _ = pacing(Scripted(ACCEPTED))
    await paced.run(array("d", [-2.0, -1.0]))
    found = paced.latencies.percentiles()
    assert found.max is not None
    assert found.max >= 1_900
    assert (paced.sends, paced.late_sends) == (2, 2)


async def test_refused_events_are_forgotten_and_doubtful_ones_kept() -> None:
    paced, expected = pacing(Scripted(Outcome("429"), BUSY, ACCEPTED))
    await paced.run(array("d", [0.0, 0.0, 0.0]))
    assert (paced.refused, len(paced.doubtful), paced.accepted) == (2, 2, 2)
    assert expected.events == 2
    assert dict(paced.statuses) == {"429": 2, "503": 2, "202": 2}


async def test_retry_after_is_honoured_if_asked_for() -> None:
    sender = Scripted(BUSY, ACCEPTED)
    paced, expected = pacing(sender, honours_retry_after=True)
    await paced.run(array("d", [0.0]))
    assert (sender.begun, paced.retried, paced.retry_after, expected.events) == (2, 1, 1, 2)


async def test_halted_pacing_sends_nothing_more() -> None:
    sender = Scripted(ACCEPTED)
    paced, _ = pacing(sender)
    paced.halt()
    await paced.run(array("d", [0.0, 0.1]))
    assert (sender.begun, paced.unsent) == (0, 4)


async def test_what_one_attempt_left_in_doubt_stays_so() -> None:
    """The log may take what a 503 left open, whatever a later attempt is answered."""
    paced, _ = pacing(Scripted(BUSY, Outcome("429")), honours_retry_after=True)
    await paced.run(array("d", [0.0]))
    assert (len(paced.doubtful), paced.refused) == (2, 0)


async def test_halted_pacing_waits_for_no_retry_after() -> None:
    sender = Scripted(BUSY._replace(retry_after_seconds=50.0))
    paced, _ = pacing(sender, honours_retry_after=True)
    running = asyncio.create_task(paced.run(array("d", [0.0])))
    await until(lambda: paced.retried, "it waits for as long as it was told to")
    paced.halt()
    async with asyncio.timeout(10):
        await running
    assert (sender.begun, len(paced.doubtful)) == (1, 2)


async def test_longer_than_a_minute_is_no_time_to_wait() -> None:
    sender = Scripted(Outcome("429", retry_after_seconds=61.0))
    paced, _ = pacing(sender, honours_retry_after=True)
    async with asyncio.timeout(10):
        await paced.run(array("d", [0.0]))
    assert (sender.begun, paced.refused, paced.retry_after) == (1, 2, 1)


async def test_halted_pacing_does_not_wait_for_the_next_send() -> None:
    sender = Scripted(ACCEPTED)
    paced, _ = pacing(sender)
    running = asyncio.create_task(paced.run(array("d", [0.0, 3_600.0])))
    await until(lambda: sender.begun == 1, "the first one is sent")
    paced.halt()
    async with asyncio.timeout(10):
        await running
    assert paced.unsent == 2
