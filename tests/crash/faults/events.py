"""Events whose handlers hang, block the process, or end it."""

from __future__ import annotations

from tests.crash.history import Fault
from tests.crash.machine import Machine
from tests.crash.plan import Step
from tests.support.waiting import until

DOOM_SECONDS, MOST_DEATHS = 180.0, 6
"""Until an event is given up on that ends processes, or has ended too many."""
GIVEN_UP = "select count(*) from headrace.dead_letter where type = 'doomed'"


async def hang(machine: Machine, step: Step, fault: Fault) -> None:
    """A handler does not return, the first time that a process runs it."""
    await _publish(machine, fault, "hang")


async def block(machine: Machine, step: Step, fault: Fault) -> None:
    """A handler takes half a second, on the event loop if it is asynchronous."""
    await _publish(machine, fault, "block")


async def die(machine: Machine, step: Step, fault: Fault) -> None:
    """A handler ends its process, once."""
    await _publish(machine, fault, "die")


async def doom(machine: Machine, step: Step, fault: Fault) -> None:
    """A handler ends each process that runs its event again, until the event is given up on."""
    known, before = sum(machine.cluster.deaths().values()), machine.history.sent.extras["doom"]
    await _publish(machine, fault, "doom")
    if machine.history.sent.extras["doom"] == before:
        return

    async def is_over() -> bool:
        await machine.restart_the_dead()
        died = sum(machine.cluster.deaths().values()) - known
        (row,) = await machine.watch.fetch(GIVEN_UP)
        return died > MOST_DEATHS or row["count"] > given_up

    (row,) = await machine.watch.fetch(GIVEN_UP)
    given_up = row["count"]
    await until(is_over, "the event is given up on", DOOM_SECONDS)


async def _publish(machine: Machine, fault: Fault, trouble: str) -> None:
    before = machine.history.sent.extras[trouble]
    machine.load.asked.append(trouble)
    await until(lambda: machine.history.sent.extras[trouble] > before or machine.load.is_at_its_end, trouble, 60)
    fault.is_done = machine.history.sent.extras[trouble] > before
