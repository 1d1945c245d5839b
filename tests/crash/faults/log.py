"""What becomes of a log itself: it is made again, cut off at its beginning, or given another partition."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from tests.crash.history import Fault
from tests.crash.machine import Machine
from tests.crash.plan import Step
from tests.crash.side import Side

FIRST, SECOND, THIRD = range(5), range(5, 10), range(10, 15)


async def make_again(machine: Machine, step: Step, fault: Fault) -> None:
    """A topic is deleted and created: it is refused until it is accepted, and then read from its beginning."""
    await _meddle(machine, step, Side.make_again)


async def cut_off(machine: Machine, step: Step, fault: Fault) -> None:
    """Every process dies, and retention takes records before one is back: it is refused until the loss is accepted."""
    async with machine.side_lock, AsyncExitStack() as stack:
        side = _side(machine, step)
        await side.publish(FIRST)
        await side.until_applied()
        for worker in machine.cluster.workers:
            await stack.enter_async_context(worker.busy)
        for worker in machine.cluster.workers:
            await worker.service.kill()
        await side.publish(SECOND)
        await side.cut_off()
        for worker in machine.cluster.workers:
            await worker.restart()
        await side.until_refused()
        await side.give_up_what_is_gone()
        await side.accept()
        await side.publish(THIRD)
        await side.until_applied()


async def grow(machine: Machine, step: Step, fault: Fault) -> None:
    """A topic gets another partition, to which keys move: it is not read until it is accepted."""
    await _meddle(machine, step, Side.grow)


async def _meddle(machine: Machine, step: Step, change: Callable[[Side], Awaitable[None]]) -> None:
    async with machine.side_lock:
        side = _side(machine, step)
        await side.publish(FIRST)
        await side.until_applied()
        await change(side)
        await side.publish(SECOND)
        await side.until_refused()
        await side.accept()
        await side.until_applied()


def _side(machine: Machine, step: Step) -> Side:
    return Side(machine.cluster, machine.watch, f"side-{step.number}", machine.history.sided)
