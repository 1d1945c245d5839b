"""The wheel that users install holds the platform and nothing else, and the examples need nothing else.

A wheel that is built where no compiler works lacks the extension, and is whole without.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import pytest
import pytest_asyncio

from tests.support.process import ROOT

EXAMPLES = ("sensors", "shipping", "notes")
OTHERS = ("cacheprovider", "asyncio", "xdist", "faker", "hypothesispytest")
"""Plugins of pytest that are here for our own tests; a user has others."""
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so")
COMPILER = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
needs_compiler = pytest.mark.skipif(
    not (shutil.which(COMPILER) and Path(sysconfig.get_path("include"), "Python.h").exists()),
    reason=f"{COMPILER} or Python.h is missing: apt-get install -y gcc libc6-dev libpython3-dev.",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return await _build(tmp_path_factory.mktemp("wheel"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel."""
    return await _environment(tmp_path_factory.mktemp("installed") / "environment", wheel)


@pytest.mark.asyncio(loop_scope="module")
async def test_wheel_holds_headrace_alone_and_its_data(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"headrace"}
    assert {"headrace/py.typed", "headrace/_speedups.pyi"} <= set(names)
    assert "headrace/_speedups.c" not in names
    packed = {name for name in names if name.endswith(".sql")}
    assert packed == {str(file.relative_to(ROOT / "app")) for file in (ROOT / "app/headrace").rglob("*.sql")}


@needs_compiler
@pytest.mark.asyncio(loop_scope="module")
async def test_wheel_brings_the_extension_compiled(python: Path) -> None:
    """Where it is installed, nothing is on PATH, so no compiler either."""
    said = await _run(str(python), "-c", "import headrace._speedups as c; print(c.__file__)", variables={"PATH": ""})
    assert Path(said.strip()).parent.parent.name == "site-packages"


@pytest.mark.asyncio(loop_scope="module")
async def test_wheel_built_without_a_compiler_works(tmp_path: Path) -> None:
    wheel = await _build(tmp_path, variables={"CC": "false"})
    python = await _environment(tmp_path / "environment", wheel)
    assert await _run(str(python), "-c", "from headrace.native import speedups; print(speedups)") == "None\n"


@pytest.mark.asyncio(loop_scope="module")
async def test_examples_pass_their_tests_on_the_wheel(python: Path, tmp_path: Path) -> None:
    """As their users run them: one environment that has the wheel, and no path of this repository.

    What Headrace depends on is that of the lock, and lies beside the environment: nothing is downloaded. It takes about
    ten seconds of a processor for each example, most of it for imports and a new PostgreSQL, so they run at once.
    """
    said = await asyncio.gather(*(_test(python, name, tmp_path) for name in EXAMPLES))
    for name, told in zip(EXAMPLES, said, strict=True):
        assert re.search(r"^\d+ passed in", told, re.MULTILINE), f"{name}: {told}"


async def _build(folder: Path, variables: Mapping[str, str] | None = None) -> Path:
    """Return a wheel, built from a copy: setuptools leaves its folders in the sources and would pack them again."""
    sources = folder / "sources"
    shutil.copytree(ROOT / "app", sources / "app", ignore=LEFT_OUT)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    await _run(sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(sources), variables=variables)
    (built,) = folder.glob("*.whl")
    return built


async def _environment(folder: Path, wheel: Path) -> Path:
    """Return the Python of an environment with the wheel."""
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin/python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    options = ("--quiet", "--no-deps", "--no-index", "--ignore-installed")
    await _run(sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel))
    where = "import importlib.util as u; print(u.find_spec('headrace').origin)"
    assert str(packages) in await _run(str(python), "-c", where)
    return python


async def _test(python: Path, name: str, folder: Path) -> str:
    """Run the tests of an example, in a copy of its own."""
    example = folder / name
    shutil.copytree(ROOT / "examples" / name, example, ignore=shutil.ignore_patterns("__pycache__"))
    plugins = [part for name in OTHERS for part in ("-p", f"no:{name}")]
    return await _run(str(python), "-m", "pytest", "-q", *plugins, folder=example)


async def _run(*command: str, folder: Path | None = None, variables: Mapping[str, str] | None = None) -> str:
    """Return what a program says that must succeed; variables are set for it."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "PYTEST_", "PYTHON"))
    } | dict(variables or {})
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 110)
    assert process.returncode == 0, said.decode()
    return said.decode()
