"""A short run of the crash machine, with fixed seeds: `make crash` runs longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.plan import draw
from tests.crash.points import POINTS
from tests.crash.report import write_report
from tests.crash.report.figures import figures
from tests.crash.run import run


@pytest.mark.timeout(400)
async def test_short_run_on_real_servers_violates_nothing(tmp_path: Path) -> None:
    """Processes die at crash points and anywhere, and zombies are refused."""
    plan = draw(3, events=20_000, faults=6)
    told: list[str] = []
    result = await run(plan, lambda what, faults, applied: told.append(what), minutes=3, kept=tmp_path / "kept")
    found = figures(result)
    assert found.violations == []
    assert found.events >= plan.events
    assert found.faults >= 4, "faults found nothing to hit"
    assert sum(found.zombie_rejections.values()) >= 1, "no zombie was refused: the machine did not test it"
    assert "everything is compared" in told
    page, as_json = write_report([result], tmp_path)
    assert "<svg" in page.read_text()
    assert as_json.read_text().startswith("[")


def test_plan_is_that_of_its_seed() -> None:
    plans = [draw(seed, events=1_000, faults=200) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert {step.point for step in plans[0].steps if step.kind == "die at a point"} >= set(POINTS) - {""}
