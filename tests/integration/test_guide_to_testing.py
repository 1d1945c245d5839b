"""The tests that the guide shows are tests that pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.pages import python_files


def test_the_tests_of_the_guide_pass(tmp_path: Path) -> None:
    """They start the platform in memory, in a process of their own, as a reader's would."""
    for name, code in python_files("docs/guide/testing.md").items():
        (tmp_path / f"{name}.py").write_text(code)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "PYTEST_"))}

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stdout
