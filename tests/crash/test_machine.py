"""A short run of the crash machine, with fixed seeds: `make crash` runs longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.faults import FAULTS
from tests.crash.plan import PUT_BACK, WEIGHTS, draw
from tests.crash.points import POINTS
from tests.crash.report import write_report
from tests.crash.report.figures import figures
from tests.crash.run import run
from tests.crash.streams import read
from tests.support.ports import free_ports

SHORT = [
    "die at a point",
    "freeze before COMMIT arrives",
    "lose the answer to COMMIT",
    "kill Postgres",
    "die in a handler",
]
LOSING = ["freeze at a point", PUT_BACK, "kill a broker"]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("seed", "kinds"), [(3, SHORT), (4, LOSING)], ids=["bookings", "database put back"])
async def test_short_run_on_real_servers_violates_nothing(tmp_path: Path, seed: int, kinds: list[str]) -> None:
    """Servers and processes die, zombies wake up, and everything that was accepted takes effect once, in order."""
    plan = draw(seed, events=8_000, faults=len(kinds), workers=2, partitions=4, kinds=kinds)
    told: list[str] = []
    result = await run(plan, lambda what, faults, applied: told.append(what), minutes=3, kept=tmp_path / "kept")
    found = figures(result)
    assert found.violations == []
    assert found.events >= plan.events
    missed = [f"{fault.kind} {fault.point}: {fault.detail}" for fault in result.history.faults if not fault.is_done]
    assert len(missed) <= 1, "these faults found nothing to hit"
    if any(fault.kind == "freeze before COMMIT arrives" and fault.is_done for fault in result.history.faults):
        assert sum(found.zombie_rejections.values()) >= 1, "no zombie was refused: the machine did not test it"
    assert found.calls >= 100
    assert found.sagas >= 15
    assert found.posted >= 300
    assert found.extras["posted in vain"] > found.extras["posted and left"] > 0, "no outcome was unknown"
    assert found.bookings >= (0 if PUT_BACK in kinds else 30)
    assert "everything is compared" in told
    page, as_json = write_report([result], tmp_path)
    assert "<svg" in page.read_text()
    assert as_json.read_text().startswith("[")


def test_every_kind_of_fault_can_be_drawn() -> None:
    assert FAULTS.keys() == WEIGHTS.keys()


def test_plan_is_that_of_its_seed() -> None:
    plans = [draw(seed, events=1_000, faults=600) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert {step.point for step in plans[0].steps if step.kind == "die at a point"} >= set(POINTS)


def test_log_whose_brokers_are_gone_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.crash.streams.SILENT_SECONDS", 0.2)
    with pytest.raises(TimeoutError, match="lists cannot be read"):
        read(f"127.0.0.1:{free_ports(1)[0]}", {"lists": 1})
