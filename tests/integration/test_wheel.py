"""The wheel that users install holds the platform and nothing else."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from zipfile import ZipFile

from tests.support.process import ROOT


async def test_wheel_holds_headrace_alone_and_its_data(tmp_path: Path) -> None:
    """It is built from a copy, since setuptools leaves its folders in the sources and would pack them again."""
    sources = tmp_path / "sources"
    shutil.copytree(ROOT / "app", sources / "app", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    command = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(*command, str(sources)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 110)
    assert process.returncode == 0, said.decode()
    (wheel,) = tmp_path.glob("*.whl")
    names = ZipFile(wheel).namelist()
    packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"headrace"}
    assert "headrace/py.typed" in names
    packed = {name for name in names if name.endswith(".sql")}
    assert packed == {str(file.relative_to(ROOT / "app")) for file in (ROOT / "app/headrace").rglob("*.sql")}
