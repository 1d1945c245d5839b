"""A copy of the code that has one mistake, and the two machines that hunt it there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]
SIMULATED = ("app", "tests/__init__.py", "tests/simulation", "tests/mutants")
ON_SERVERS = ("app", "tests")
EVENTS, FAULTS = 20_000, 12
"""Of each seed on real servers: about a minute."""
LIVENESS = "I10"


def hunt(mutant: Mutant, seconds: float) -> dict[str, Any]:
    """Return what the simulation found of a mutant. Raises: RuntimeError (it does not run)."""
    with _copy(mutant, SIMULATED) as copy:
        ran = _run(copy, "tests.mutants.hunt", str(seconds))
    if ran.returncode != 0:
        raise RuntimeError(f"the mutant {mutant.name!r} does not run:\n{ran.stderr}")
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def hunt_on_servers(mutant: Mutant, seconds: float) -> dict[str, Any]:
    """Return what the crash machine found of a mutant, seed after seed. Raises: RuntimeError (it does not run)."""
    began, seed, late, found = monotonic(), 0, 0, None
    with _copy(mutant, ON_SERVERS) as copy:
        (copy / "build").mkdir()
        (copy / "build" / "kafka").symlink_to(ROOT / "build" / "kafka")
        while found is None and monotonic() - began < seconds:
            seed += 1
            plan = ("--seed", str(seed), "--events", str(EVENTS), "--faults", str(FAULTS))
            ran = _run(copy, "tests.crash", *plan, "--report", str(copy / "report"))
            report = copy / "report" / "report.json"
            if not report.exists():
                raise RuntimeError(f"the mutant {mutant.name!r} does not run:\n{ran.stdout[-2_000:]}{ran.stderr}")
            texts = json.loads(report.read_text())[0]["violations"]
            safety = [text for text in texts if not text.startswith(LIVENESS)]
            if safety:
                found = {"invariant": safety[0].partition(":")[0], "text": safety[0].partition(":")[2].strip()}
            late += bool(texts) and not safety
            report.unlink()
    return {"seed": seed, "seconds": monotonic() - began, "late": late, "found": found}


@contextmanager
def _copy(mutant: Mutant, names: tuple[str, ...]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in names:
            source, target = ROOT / name, copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        for patch in mutant.patches:
            patch.apply(copy)
        yield copy


def _run(copy: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": f"{copy / 'app'}{os.pathsep}{copy}"},
        capture_output=True,
        text=True,
        check=False,
    )
