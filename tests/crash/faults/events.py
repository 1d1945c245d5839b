"""Events whose handlers hang, block the process, or end it."""

from __future__ import annotations

from tests.crash.history import Fault
from tests.crash.machine import Machine
from tests.crash.plan import Step
from tests.support.waiting import until


async def hang(machine: Machine, step: Step, fault: Fault) -> None:
    """A handler does not return, the first time that a process runs it."""
    await _publish(machine, fault, "hang")


async def block(machine: Machine, step: Step, fault: Fault) -> None:
    """A handler takes half a second, on the event loop if it is asynchronous."""
    await _publish(machine, fault, "block")


async def die(machine: Machine, step: Step, fault: Fault) -> None:
    """A handler ends its process, once."""
    await _publish(machine, fault, "die")


async def _publish(machine: Machine, fault: Fault, trouble: str) -> None:
    before = machine.history.sent.extras[trouble]
    machine.load.asked.append(trouble)
    await until(lambda: machine.history.sent.extras[trouble] > before or machine.load.is_at_its_end, trouble, 60)
    fault.is_done = machine.history.sent.extras[trouble] > before
