"""A program that is launched dies with its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.database import launch


def test_the_program_replaces_the_launcher_and_keeps_its_exit_code() -> None:
    program = launch.command("same", [sys.executable, "-c", "raise SystemExit(7)"])
    assert subprocess.run(program, check=False).returncode == 7


def test_a_program_whose_parent_is_gone_already_does_not_start(tmp_path: Path) -> None:
    program = launch.command("same", [sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"])
    program[4] = "1"  # as if the parent had died and init had taken over
    told = subprocess.run(program, capture_output=True, text=True, check=False)
    assert told.returncode != 0
    assert "the parent is gone" in told.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ties a process to its parent")
def test_the_death_signal_is_set_for_the_program() -> None:
    ask = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    program = launch.command("same", [sys.executable, "-c", ask], signal.SIGTERM)
    told = subprocess.run(program, capture_output=True, text=True, check=True)
    assert int(told.stdout) == signal.SIGTERM
