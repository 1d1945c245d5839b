"""What the chart renders: fit for the cluster, for the `restricted` profile, and for both Helms."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.charts.helm import (
    ALL_KINDS,
    CHART,
    EXAMPLES,
    HTTP_ROUTE,
    KEDA,
    MINIMAL,
    NEWEST,
    POD_MONITOR,
    PROMETHEUS_RULE,
    RENDERER,
    ROOT,
    Object,
    environment,
    merged,
    of_kind,
    one,
    pod_specs,
    render,
    run,
    said,
    to_json,
    tool,
)

OLDEST = "1.29.0"
EVERYTHING = merged(
    MINIMAL,
    {
        "kafka": {
            "securityProtocol": "SASL_SSL",
            "sasl": {"mechanism": "SCRAM-SHA-512", "existingSecret": "kafka"},
            "tls": {"existingSecret": "kafka-tls"},
        },
        "database": {"host": "db", "maxConnections": 500, "tls": {"existingSecret": "db-tls"}},
        "ingest": {"autoscaling": {"enabled": True}},
        "workers": {
            "wallets": {
                "subscriptions": ["wallets"],
                "keda": {"enabled": "auto", "minReplicas": 2, "topics": {"wallets": {"partitions": 6}}},
            },
            "alerts": {"subscriptions": ["alerts"], "replicas": 2},
        },
        "ingress": {"enabled": True, "hosts": ["shop.example"]},
        "httpRoute": {"enabled": "auto", "parentRefs": [{"name": "gateway"}]},
        "networkPolicy": {"enabled": True, "egress": {"kafka": [{}], "postgres": [{}], "otlp": [{}]}},
        "otel": {"enabled": True, "endpoint": "http://collector:4318"},
        "dashboards": {"enabled": True},
    },
)
NAMES = [file.stem for file in EXAMPLES]
DEVELOPMENT = {
    file.stem: file
    for file in (ROOT / "k8s").rglob("*.yaml")
    if file.name not in ("kustomization.yaml", "kind.yaml", "split.yaml")  # for kustomize, kind and helm
}
CHECKED = [*NAMES, "everything", *DEVELOPMENT]
examples = pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)


@examples
def test_an_example_passes_lint(example: Path) -> None:
    result = run("helm", "lint", "--strict", str(CHART), "--kube-version", NEWEST, "--values", str(example))
    assert result.returncode == 0, result.stdout + result.stderr


@examples
def test_an_example_has_fewer_than_twenty_lines(example: Path) -> None:
    assert len(example.read_text().splitlines()) < 20


@pytest.mark.parametrize("version", [OLDEST, "newest"])
@pytest.mark.parametrize("example", CHECKED)
def test_the_api_server_would_take_every_object(example: str, version: str) -> None:
    found = checked(version)[example]
    assert {each["status"] for each in found} - {""} == {"statusValid"}, found  # an empty document has none


@cache
def checked(version: str) -> dict[str, list[dict[str, str]]]:
    """Return what kubeconform says of each object, by file: one run, since the schemas take it long to read."""
    schemas_folder, newest = schemas()
    number = newest if version == "newest" else version
    location = "/{{.NormalizedKubernetesVersion}}-local{{.StrictSuffix}}/{{.ResourceKind}}{{.KindSuffix}}.json"
    with TemporaryDirectory() as folder:
        for name in (*NAMES, "everything"):
            values, files = (EVERYTHING, []) if name == "everything" else ({}, [CHART / "examples" / f"{name}.yaml"])
            result = said(values, files=files, api_versions=ALL_KINDS, kube_version=number)
            (Path(folder) / f"{name}.yaml").write_text(result.text)
        for name, file in DEVELOPMENT.items():
            shutil.copy(file, Path(folder) / f"{name}.yaml")
        told = run(
            "kubeconform",
            *("-strict", "-verbose", "-output=json", f"-kubernetes-version={number}"),
            f"-schema-location={schemas_folder}{location}",
            f"-schema-location={Path(__file__).parent / 'crds'}/{{{{.ResourceKind}}}}.json",
            folder,
        )
    assert told.stdout, told.stderr
    found: dict[str, list[dict[str, str]]] = {name: [] for name in CHECKED}
    for each in json.loads(told.stdout)["resources"]:
        found[Path(each["filename"]).stem].append(each)
    return found


@pytest.mark.parametrize("release", ["shop", "a" * 53])
def test_names_are_unique_and_fit(release: str) -> None:
    objects = render(EVERYTHING, api_versions=ALL_KINDS, release=release)
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names))
    assert [
        name for _, name in names if len(name) > 63 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    ] == []


@pytest.mark.parametrize("helm", ["helm", "helm-4/helm"])
def test_every_helm_renders_the_same(helm: str) -> None:
    newer = said(EVERYTHING, api_versions=ALL_KINDS, helm=helm)
    assert not newer.error, newer.error
    rendered = to_json(re.split(r"^---\n", newer.text, flags=re.MULTILINE))
    assert sorted(map(json.dumps, rendered)) == sorted(map(json.dumps, render(EVERYTHING, api_versions=ALL_KINDS)))


def test_the_renderer_says_what_helm_says() -> None:
    example = CHART / "examples" / "kind.yaml"
    for values in ({}, {"workers": {"default": None}}, {"ingest": {"unknownValue": 1}}, {"mode": "all"}):
        ours, theirs = (said(values, files=[example], helm=helm) for helm in (RENDERER, "helm"))
        assert ours.text.strip() == theirs.text.strip()
        assert ours.error.strip() == theirs.error.partition("\n\nUse --debug")[0].strip()


@pytest.mark.parametrize("example", [*EXAMPLES, None], ids=[*NAMES, "everything"])
def test_every_pod_fits_the_restricted_profile(example: Path | None) -> None:
    objects = render({} if example else EVERYTHING, files=[example] if example else [], api_versions=ALL_KINDS)
    for name, spec in pod_specs(objects).items():
        context = spec["securityContext"]
        assert context["runAsNonRoot"], name
        assert context["runAsUser"] == 10001, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "secret", "configMap", "projected", "persistentVolumeClaim"}, name
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name


def test_every_container_asks_for_what_it_needs() -> None:
    for name, spec in pod_specs(render(EVERYTHING, api_versions=ALL_KINDS)).items():
        assert spec["enableServiceLinks"] is False, name
        assert spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            resources = container["resources"]
            assert set(resources["requests"]) == {"cpu", "memory"}, name
            assert resources["limits"] == {"memory": resources["requests"]["memory"]}, "a CPU limit costs heartbeats"
            assert not container["image"].endswith(":latest"), name
            if name.startswith("Deployment/"):
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container), name


def test_no_secret_stands_in_an_object() -> None:
    objects = render(EVERYTHING, api_versions=ALL_KINDS)
    assert of_kind(objects, "Secret") == []
    assert "password" not in environment(objects, "ingest").get("HEADRACE_DATABASE", "")


def test_selectors_hold_nothing_that_changes() -> None:
    for each in of_kind(render(EVERYTHING), "Deployment"):
        labels = each["spec"]["selector"]["matchLabels"]
        assert set(labels) == {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}
        assert labels.items() <= each["spec"]["template"]["metadata"]["labels"].items()


def test_without_its_definitions_only_built_in_kinds_appear() -> None:
    groups = {each["apiVersion"].rpartition("/")[0] for each in render(EVERYTHING)}
    assert groups <= {"", "apps", "autoscaling", "batch", "policy", "networking.k8s.io"}


@pytest.mark.parametrize(
    ("known", "appears"),
    [
        (KEDA, {"ScaledObject", "TriggerAuthentication"}),
        (POD_MONITOR, {"PodMonitor"}),
        (PROMETHEUS_RULE, {"PrometheusRule"}),
        (HTTP_ROUTE, {"HTTPRoute"}),
    ],
    ids=["keda", "pod-monitor", "prometheus-rule", "http-route"],
)
def test_with_a_definition_exactly_its_kinds_appear(known: str, appears: set[str]) -> None:
    before = {each["kind"] for each in render(EVERYTHING)}
    assert {each["kind"] for each in render(EVERYTHING, api_versions=[known])} - before == appears


def test_a_scaler_owns_the_number_of_pods() -> None:
    objects = render(EVERYTHING, api_versions=ALL_KINDS)
    assert "replicas" not in one(objects, "Deployment", "-ingest")["spec"]
    assert "replicas" not in one(objects, "Deployment", "-wallets")["spec"]
    assert one(objects, "Deployment", "-alerts")["spec"]["replicas"] == 2
    assert one(objects, "ScaledObject")["spec"]["fallback"]["replicas"] == 2


def test_keda_asks_for_the_group_of_a_subscription() -> None:
    (trigger,) = one(render(EVERYTHING, api_versions=ALL_KINDS), "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["consumerGroup"] == "shop.wallets"
    assert trigger["metadata"]["offsetResetPolicy"] == "earliest"


def test_a_budget_is_left_out_for_a_single_pod() -> None:
    objects = render(MINIMAL)
    assert [each["metadata"]["name"] for each in of_kind(objects, "PodDisruptionBudget")] == ["shop-headrace-ingest"]


def test_the_grace_period_holds_the_whole_stop() -> None:
    objects = render(merged(MINIMAL, {"ingest": {"drainSeconds": 50, "preStopSeconds": 7}}))
    for ending, seconds in (("-ingest", 7 + 50), ("-default", 30)):
        spec = one(objects, "Deployment", ending)["spec"]["template"]["spec"]
        assert spec["terminationGracePeriodSeconds"] >= seconds + 30


def test_a_hook_uses_nothing_of_the_release() -> None:
    job = one(render(EVERYTHING), "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    spec = job["spec"]["template"]["spec"]
    assert "serviceAccountName" not in spec
    assert all("envFrom" not in container for container in spec["containers"])


def test_a_plain_job_has_a_name_for_what_it_runs() -> None:
    def name(**image: str) -> str:
        job = one(render(merged(MINIMAL, {"migrations": {"mode": "job"}, "image": image})), "Job")
        assert "helm.sh/hook" not in job["metadata"].get("annotations", {})
        return str(job["metadata"]["name"])

    assert name(tag="1") == name(tag="1") != name(tag="2")


def test_pods_never_migrate_if_a_job_does() -> None:
    assert environment(render(MINIMAL), "ingest")["HEADRACE_DATABASE_MIGRATE_ON_START"] == "false"


def test_the_embedded_log_has_one_pod_and_is_replaced_whole() -> None:
    example = CHART / "examples" / "embedded.yaml"
    (deployment,) = of_kind(render({}, files=[example]), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_a_group_takes_from_the_defaults_what_it_does_not_say() -> None:
    values = {"workerDefaults": {"pool": {"maxSize": 4}}, "workers": {"a": {"subscriptions": ["a"], "replicas": 3}}}
    objects = render(merged(MINIMAL, values))
    assert one(objects, "Deployment", "-a")["spec"]["replicas"] == 3
    assert environment(objects, "-a")["HEADRACE_DATABASE_POOL_SIZE"] == "4"


def test_a_changed_setting_restarts_every_pod() -> None:
    def checksums(level: str) -> list[Any]:
        objects = render(merged(MINIMAL, {"settings": {"HEADRACE_LOG_LEVEL": level}}))
        templates = (each["spec"]["template"] for each in of_kind(objects, "Deployment"))
        return [template["metadata"]["annotations"]["checksum/config"] for template in templates]

    before, after = checksums("INFO"), checksums("DEBUG")
    assert len(before) == 2
    assert not set(before) & set(after)


def test_large_numbers_are_written_out() -> None:
    values = merged(MINIMAL, {"settings": {"HEADRACE_ENGINE_BATCH_BYTES": 16777216}})
    assert environment(render(values), "ingest")["HEADRACE_ENGINE_BATCH_BYTES"] == "16777216"


@pytest.mark.parametrize("name", ["HEADRACE_KAFKA_LINGER_SECONDS", "HEADRACE_ENGINE_DEDUPE_WINDOW_IDS"])
def test_a_setting_of_zero_is_set(name: str) -> None:
    assert environment(render(merged(MINIMAL, {"settings": {name: 0}})), "ingest")[name] == "0"


def test_a_number_of_the_security_context_can_be_left_out() -> None:
    specs = pod_specs(render(merged(MINIMAL, {"podSecurity": {"runAsUser": None}})))
    assert all("runAsUser" not in spec["securityContext"] for spec in specs.values())


def test_a_parent_chart_may_share_values() -> None:
    assert render(merged(MINIMAL, {"global": {"registry": {"host": "anything"}}}))


def schemas() -> tuple[Path, str]:
    """Return the folder of Kubernetes' schemas, and the newest version in it."""
    tool("kubeconform")
    folder = Path(tool("kubernetes-json-schema"))
    versions = [
        tuple(map(int, found.groups()))
        for each in folder.iterdir()
        if (found := re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)-local-strict", each.name))
    ]
    return folder, ".".join(map(str, max(versions)))


def test_every_object_carries_the_common_labels() -> None:
    labels: Object = {"commonLabels": {"team": "shop"}, "commonAnnotations": {"owner": "shop"}}
    for each in render(merged(EVERYTHING, labels), api_versions=ALL_KINDS):
        assert each["metadata"]["labels"]["team"] == "shop", each["kind"]
        assert each["metadata"]["annotations"]["owner"] == "shop", each["kind"]
        assert each["metadata"]["namespace"] == "shop-space", each["kind"]


def test_a_group_that_is_null_is_taken_away() -> None:
    values = {"workers": {"default": None, "wallets": {"subscriptions": ["wallets"]}}}
    names = [each["metadata"]["name"] for each in of_kind(render(merged(MINIMAL, values)), "Deployment")]
    assert names == ["shop-headrace-ingest", "shop-headrace-worker-wallets"]


def test_a_group_may_have_no_pods() -> None:
    values = {"workers": {"default": {"replicas": 0, "minReadySeconds": 0}}}
    spec = one(render(merged(MINIMAL, values)), "Deployment", "-default")["spec"]
    assert (spec["replicas"], spec["minReadySeconds"]) == (0, 0)


@pytest.mark.parametrize("values", [{"ingest": {"strategy": {"type": "Recreate"}}}], ids=["ingest"])
def test_a_changed_type_of_strategy_is_whole(values: dict[str, Any]) -> None:
    assert one(render(merged(MINIMAL, values)), "Deployment", "-ingest")["spec"]["strategy"] == {"type": "Recreate"}
