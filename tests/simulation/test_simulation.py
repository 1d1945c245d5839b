"""The simulator itself, and a few of its seeds: `make simulate` runs thousands."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Any

import pytest

from tests.simulation.checkers.violation import Violation
from tests.simulation.loop import EndlessError, Loop
from tests.simulation.plan import FAULTS, IN_CLAIMS, SMALL, Fault, Plan, PlannedEvent, draw
from tests.simulation.shrink import shrink
from tests.simulation.simulation import Simulation, simulate
from tests.simulation.store.client import Connection

SEEDS = (3, 7, 18, 78, 223, 1253)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep what the engine writes about its faults out of the report."""
    logger = logging.getLogger("headrace")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


@pytest.mark.parametrize("seed", SEEDS)
def test_seed_breaks_no_promise(seed: int) -> None:
    result = simulate(draw(seed))
    assert result.violation is None
    assert {fault.kind for fault in result.plan.faults} <= result.counts.keys()


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(1001269, id="process leaves as it starts"),
        pytest.param(1001710, id="event whose turn has not come is blamed for deaths"),
        pytest.param(1206026, id="event is blamed for one that ends its process beside it"),
        pytest.param(1211349, id="call goes on behind an answer that Postgres was away for"),
        pytest.param(1207294, id="former owner keeps an answer that the new one has not seen"),
        pytest.param(1244513, id="COMMIT whose answer was lost takes effect behind the stop"),
        pytest.param(1054181, id="answer on its way when its call is cut short arrives behind the stop"),
    ],
)
def test_seed_that_has_broken_a_promise_breaks_none(seed: int) -> None:
    assert simulate(draw(seed, SMALL)).violation is None


def test_every_kind_of_fault_comes_about() -> None:
    faults = tuple(Fault(5.0 + place * 3, kind, place, 3, 2.0) for place, kind in enumerate((*FAULTS, *IN_CLAIMS)))
    result = simulate(_plan(processes=3, partitions=2, faults=faults))
    assert result.violation is None
    assert result.counts.keys() >= {*FAULTS, *IN_CLAIMS}


def test_same_seed_gives_the_same_trace() -> None:
    """In the second of them, a handler meets an outage, and single events are tried now and then."""
    first, again = ([simulate(draw(seed)).trace for seed in (3, 71)] for _ in range(2))
    assert first == again
    assert first[0] != first[1]


def test_trace_is_the_same_in_another_process() -> None:
    """Neither the addresses of objects nor the hashes of strings decide about anything."""
    code = "from tests.simulation.plan import draw; from tests.simulation.simulation import simulate; "
    code += "import logging; logging.disable(); print(simulate(draw(3)).trace)"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": f"app{os.pathsep}."}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == simulate(draw(3)).trace


def test_broken_promise_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here: a window that forgets, and a duplicate in a run with much else."""
    monkeypatch.setattr("headrace.ledger.window.DedupeWindow.add", lambda *args: None)
    plan = draw(18)
    violation = simulate(plan).violation
    assert violation is not None
    assert violation.invariant == "I4 an emit is committed once"
    smaller = shrink(plan, violation.invariant, runs=8)
    assert len(smaller.events) < len(plan.events)
    found = simulate(smaller).violation
    assert found is not None
    assert found.invariant == violation.invariant


def test_statement_without_a_model_is_named() -> None:
    simulation = Simulation(_plan())

    async def ask() -> None:
        await Connection(simulation.loop, simulation.server, None, 5.0).execute("select 'nobody knows'")

    simulation.loop.outside(1.0, lambda: simulation.loop.create_task(ask()))
    result = simulation.run()
    assert result.violation is not None
    assert "the store has no model of this query: select 'nobody knows'" in result.violation.text


def test_circle_without_waiting_is_an_error() -> None:
    async def turn() -> None:
        for _ in count():
            await asyncio.sleep(0)

    with pytest.raises(EndlessError, match="took no time"):
        Loop(Random(1)).run(turn())


def test_frozen_process_goes_on_where_it_was() -> None:
    fault = Fault(10.0, "freeze", 0, 5, 20.0)
    events = tuple(PlannedEvent(9.0 + number, "page", number, "plain") for number in range(1, 20))
    result = simulate(Plan(1, processes=2, events=events, faults=(fault,)))
    assert result.violation is None


def test_violation_reads_as_a_sentence() -> None:
    assert str(Violation("I2 applied once", "page has number 1 twice")) == "I2 applied once: page has number 1 twice"


def _plan(**options: Any) -> Plan:
    events = tuple(PlannedEvent(number * 0.5, f"page-{number % 3}", number, "plain") for number in range(1, 120))
    return Plan(1, events=events, **options)
