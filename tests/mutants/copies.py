"""A copy of the code that has one mistake, and the two machines that hunt it there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from time import monotonic
from typing import Any
from uuid import uuid4

from tests.crash.cluster import NAMED, SHARED
from tests.mutants.mutant import Hunt, Mutant, Patch
from tests.support.kafka import KafkaServer
from tests.support.ports import free_ports

ROOT = Path(__file__).parents[2]
SIMULATED = ("app", "tests/__init__.py", "tests/simulation", "tests/mutants")
ON_SERVERS = ("app", "tests")
LIVENESS = "I10"
PATIENCE_SECONDS = 60
"""What is late is no finding: it is not waited for as long as by `make crash`."""
MOST_BROKEN = 3
"""Runs of a mutant that break off before they can be judged."""


def hunt(mutant: Mutant, seconds: float) -> dict[str, Any]:
    """Return what the simulation found of a mutant. Raises: RuntimeError (it does not run)."""
    with _copy((*mutant.patches, *mutant.simulated), SIMULATED) as copy:
        ran = _run(copy, "tests.mutants.hunt", str(seconds))
    if ran.returncode != 0:
        raise RuntimeError(f"the mutant {mutant.name!r} does not run:\n{ran.stderr}")
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


@contextmanager
def brokers(count: int) -> Iterator[Queue[str]]:
    """Start so many brokers, for one run after the other each: to start one costs as much as half of a run."""
    free: Queue[str] = Queue()
    servers = []
    try:
        for _ in range(count):
            (port,) = free_ports(1)
            server = KafkaServer(advertised=f"127.0.0.1:{port}")
            servers.append(server)
            asyncio.run(server.start())
            free.put(f"{server.ports[0]},{server.proxied_port},{port}")
        yield free
    finally:
        for server in servers:
            asyncio.run(server.stop())


def hunt_on_servers(mutant: Mutant, seconds: float, free: Queue[str]) -> dict[str, Any]:
    """Hunt with one of the brokers that are free. Raises: as `_hunt_with`."""
    broker = free.get()
    try:
        return _hunt_with(broker, mutant, seconds)
    finally:
        free.put(broker)


def _hunt_with(broker: str, mutant: Mutant, seconds: float) -> dict[str, Any]:
    """Return what the crash machine found of a mutant, seed after seed. Raises: RuntimeError (it does not run).

    A run that breaks off, since the mistake breaks what the machine relies on, is no finding of a checker.
    """
    began, seed, late, broken, found = monotonic(), 0, 0, 0, None
    with _copy((*mutant.patches, *mutant.on_servers), ON_SERVERS) as copy:
        (copy / "build").mkdir()
        (copy / "build" / "kafka").symlink_to(ROOT / "build" / "kafka")
        while found is None and monotonic() - began < seconds:
            seed += 1
            arguments = ("--seed", str(seed), *_plan(mutant.hunt), "--report", str(copy / "report"))
            shared = {SHARED: broker, NAMED: f"lists-{uuid4().hex}"} if mutant.hunt.may_share else {}
            ran = _run(copy, "tests.crash", *arguments, **shared)
            report = copy / "report" / "report.json"
            if not report.exists():
                broken += 1
                if broken == MOST_BROKEN:
                    raise RuntimeError(f"the mutant {mutant.name!r} does not run:\n{ran.stdout[-2_000:]}{ran.stderr}")
                continue
            texts = json.loads(report.read_text())[0]["violations"]
            safety = [text for text in texts if not text.startswith(LIVENESS)]
            if safety:
                found = {"invariant": safety[0].partition(":")[0], "text": safety[0].partition(":")[2].strip()}
            late += bool(texts) and not safety
            report.unlink()
    return {"seed": seed, "seconds": monotonic() - began, "late": late, "found": found}


def _plan(hunt: Hunt) -> list[str]:
    """Return the arguments of the crash machine."""
    numbers = {"events": hunt.events, "faults": hunt.faults, "workers": hunt.workers, "partitions": hunt.partitions}
    arguments = ["--patience", str(PATIENCE_SECONDS)]
    arguments += [text for name, number in numbers.items() for text in (f"--{name}", str(number))]
    for name, chosen in (("kinds", hunt.kinds), ("points", hunt.points)):
        arguments += [f"--{name}", *chosen] if chosen else []
    if hunt.shares:
        arguments += ["--shares", ",".join(f"{name}={share}" for name, share in hunt.shares.items())]
    return arguments


@contextmanager
def _copy(patches: Sequence[Patch], names: tuple[str, ...]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in names:
            source, target = ROOT / name, copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        for patch in patches:
            patch.apply(copy)
        yield copy


def _run(copy: Path, module: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=copy,
        env={**os.environ, **variables, "PYTHONPATH": f"{copy / 'app'}{os.pathsep}{copy}"},
        capture_output=True,
        text=True,
        check=False,
    )
