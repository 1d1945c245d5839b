"""What must not happen for nothing while a run goes on: refused partitions, lost claims, events that end processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.engine.worker import Phase
from tests.simulation.checkers.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.pod import Pod
    from tests.simulation.simulation import Simulation

MOST_DEATHS = 15
"""An event that ends its process does so a few times: until it is found, parked, and tried once more."""


def check_workers(simulation: Simulation) -> None:
    """Look at every worker once. Raises: Violation."""
    for pod in simulation.pods:
        if pod.process.is_frozen:
            continue
        for consumer in pod.consumers:
            for number, worker in consumer.workers.items():
                if worker.phase is Phase.REFUSED:
                    raise Violation(
                        "nothing is refused for nothing", f"{consumer.group}/{number} is refused by {pod.process.name}"
                    )
                if worker.phase is Phase.FENCED and not simulation.restores:
                    _check_fenced(simulation, pod, consumer.group, worker.topic_partitions[0])


def _check_fenced(simulation: Simulation, pod: Pod, group: str, place: tuple[str, int]) -> None:
    claim = simulation.server.tables.get("claim", (group, *place))
    if claim is not None and claim["owner"] == pod.process.name:
        raise Violation("nobody is fenced for nothing", f"{pod.process.name} gave {group} {place} up, which it owns")


def check_deaths(simulation: Simulation) -> None:
    """Refuse an event that ends one process after the other. Raises: Violation."""
    for place, times in simulation.world.deaths.items():
        if times > MOST_DEATHS * (1 + simulation.restores):
            raise Violation("an event ends a few processes at most", f"{place} has ended {times} of them")
