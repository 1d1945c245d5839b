"""Every crash point is a function that the engine has, and passing one does nothing unless it was asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest

from tests.crash.points import POINTS, arm, disarm, reach


@pytest.mark.parametrize("name", POINTS)
def test_point_is_a_function_of_the_engine(name: str) -> None:
    point = POINTS[name]
    owner = importlib.import_module(point.module)
    assert callable(reduce(getattr, point.function.split("."), owner))


def test_process_that_comes_to_its_point_dies_there(tmp_path: Path) -> None:
    file = tmp_path / "point"
    arm(file, "after COMMIT", "kill")
    program = f"""
from pathlib import Path
from tests.crash.points import reach
for name in ("before COMMIT", "after COMMIT", "a claim is taken"):
    print(name, flush=True)
    reach(Path({str(file)!r}), name)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.splitlines()) == (-9, ["before COMMIT", "after COMMIT"])
    assert not disarm(file), "it has happened"


def test_point_that_was_taken_back_does_nothing(tmp_path: Path) -> None:
    file = tmp_path / "point"
    arm(file, "after COMMIT", "kill")
    assert disarm(file)
    reach(file, "after COMMIT")
