"""Every value does something, has a comment, and cannot be misspelt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from headrace.settings import variables
from tests.charts.helm import ALL_KINDS, CHART, MINIMAL, environment, merged, of_kind, refusal, render, said, to_json
from tests.charts.settings_schema import FROM_OTHER_VALUES, NEVER, SCHEMA, settings_schema

Schema = dict[str, Any]
Path = tuple[str, ...]

WHOLE: Schema = json.loads(SCHEMA.read_text())
KEDA = {"subscriptions": ["wallets"], "keda": {"enabled": True, "topics": {"wallets": {}}}}
PROMETHEUS = {"trigger": "prometheus", "prometheusAddress": "http://prometheus:9090"}
SASL = {"securityProtocol": "SASL_SSL", "sasl": {"mechanism": "PLAIN", "existingSecret": "kafka"}}
TLS = {"tls": {"existingSecret": "kafka-tls", "certKey": "tls.crt", "keyKey": "tls.key"}}
OPEN: dict[str, Any] = {"kafka": [{}], "postgres": [{}], "otlp": [{}]}

POOL = {"pool": {"maxSize": 20}}

NEEDS: dict[str, dict[str, Any]] = {
    "kafka.sasl": {"kafka": SASL},
    "kafka.tls": {"kafka": SASL | TLS},
    "kafka.securityProtocol": {"kafka": {"sasl": SASL["sasl"]}},
    "database.host": {},
    "database.urlKey": {},
    "database.existingSecret": {},
    "database.maxConnections": {"ingest": {"replicas": 9}},
    "database.reservedConnections": {},
    "database": {"database": {"host": "db", "tls": {"existingSecret": "db-tls"}}},
    "database.tls": {"database": {"host": "db", "tls": {"existingSecret": "db-tls"}}},
    "embedded": {"kafka": {"brokers": []}, "mode": "all", "ingest": POOL, "embedded": {"enabled": True}},
    "embedded.enabled": {"kafka": {"brokers": []}, "mode": "all", "ingest": POOL},
    "mode": {"ingest": POOL},
    "apiKeys.allowUnauthenticated": {"apiKeys": {"existingSecret": ""}},
    "app.service": {"workerDefaults": KEDA},
    "workerDefaults.keda.maxReplicas": {"workerDefaults": merged(KEDA, {"pool": {"maxSize": 2}})},
    "workerDefaults.keda.trigger": {"workerDefaults": merged(KEDA, {"keda": PROMETHEUS | {"trigger": "kafka"}})},
    "ingest.autoscaling.maxReplicas": {"ingest": {"pool": {"maxSize": 2}, "autoscaling": {"enabled": True}}},
    "ingest.autoscaling": {"ingest": {"autoscaling": {"enabled": True}}},
    "ingest.autoscaling.enabled": {},
    "workerDefaults.keda": {"workerDefaults": KEDA},
    "workerDefaults.keda.enabled": {"workerDefaults": KEDA | {"keda": {"topics": {"wallets": {}}}}},
    "workerDefaults.keda.prometheusAddress": {"workerDefaults": merged(KEDA, {"keda": PROMETHEUS})},
    "workerDefaults.keda.secondsToDrain": {"workerDefaults": merged(KEDA, {"keda": PROMETHEUS})},
    "workerDefaults.keda.acknowledgeTimersStop": {"workerDefaults": merged(KEDA, {"keda": {"minReplicas": 0}})},
    "workerDefaults.pdb": {"workerDefaults": {"replicas": 2}},
    "ingress": {"ingress": {"enabled": True, "hosts": ["shop.example"]}},
    "ingress.enabled": {"ingress": {"hosts": ["shop.example"]}},
    "httpRoute": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]}},
    "httpRoute.enabled": {"httpRoute": {"parentRefs": [{"name": "gateway"}]}},
    "networkPolicy": {"networkPolicy": {"enabled": True, "egress": OPEN}},
    "networkPolicy.enabled": {"networkPolicy": {"egress": OPEN}},
    "metrics.serviceMonitor": {},
    "metrics": {"metrics": {"podMonitor": {"enabled": True}}},
    "metrics.podMonitor.enabled": {},
    "alerts": {"alerts": {"enabled": True}},
    "alerts.enabled": {},
    "dashboards": {"dashboards": {"enabled": True}},
    "dashboards.enabled": {},
    "otel": {"otel": {"enabled": True, "endpoint": "http://collector:4318"}},
    "otel.enabled": {"otel": {"endpoint": "http://collector:4318"}},
}
"""What else has to be set so that a value has something to do, by the longest part of its path."""

SET: dict[str, Any] = {
    "kafka.brokers": ["another:9092"],
    "kafka.securityProtocol": "SASL_PLAINTEXT",
    "kafka.sasl.mechanism": "SCRAM-SHA-256",
    "kafka.tls.certKey": "client.crt",
    "kafka.tls.keyKey": "client.key",
    "database.maxConnections": 20,
    "database.reservedConnections": 90,
    "embedded.persistence.size": "1Gi",
    "image.digest": "sha256:" + "0" * 64,
    "image.pullSecrets": [{"name": "registry"}],
    "app.module": "orders.service:app",
    "app.command": ["opentelemetry-instrument", "headrace"],
    "workers": {"wallets": {"subscriptions": ["wallets"]}},
    "workerDefaults.subscriptions": ["wallets"],
    "workerDefaults.keda.topics": {"orders": {"partitions": 6}},
    "workerDefaults.keda.trigger": "prometheus",
    "workerDefaults.keda.fallback.behavior": "static",
    "ingest.pdb.maxUnavailable": "50%",
    "workerDefaults.pdb.maxUnavailable": "50%",
    "ingress.hosts": ["other.example"],
    "ingress.tls": [{"hosts": ["shop.example"], "secretName": "shop-tls"}],
    "ingress.public": ["*"],
    "httpRoute.public": ["events", "state"],
    "networkPolicy.egress.kafka": [{"ports": [{"port": 9092}]}],
    "networkPolicy.egress.postgres": [{"ports": [{"port": 5432}]}],
    "networkPolicy.egress.otlp": [{"ports": [{"port": 4318}]}],
    "metrics.interval": "30s",
    "alerts.disabled": ["HeadraceLagGrowing"],
    "alerts.overrides": {"HeadraceLagGrowing": {"for": "1h", "threshold": 5, "severity": "page"}},
    "otel.endpoint": "http://other:4318",
    "test.effect.path": "/state/alerts/alert/ada",
    "settings": {"HEADRACE_LOG_LEVEL": "DEBUG"},
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-own"}}],
}
"""Another value than the default, if it cannot be made from the schema."""

BY_NAME: dict[str, Any] = {
    "settings": {"HEADRACE_LOG_LEVEL": "DEBUG"},
    "extraEnv": [{"name": "SHOP_REGION", "value": "north"}],
    "extraEnvFrom": [{"secretRef": {"name": "shop"}}],
    "extraVolumes": [{"name": "models", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "models", "mountPath": "/models"}],
    "initContainers": [{"name": "first", "image": "first:1"}],
    "sidecars": [{"name": "beside", "image": "beside:1"}],
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "resources": {"requests": {"cpu": "3"}},
    "strategy": {"type": "Recreate"},
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
    "parentRefs": [{"name": "other"}],
    "ingressFrom": [{"podSelector": {}}],
    "metricsFrom": [{"podSelector": {}}],
    "extra": [{"ports": [{"port": 443}]}],
    "relabelings": [{"action": "labeldrop", "regex": "container"}],
    "data": {"customer": "another"},
    "global": {"shared": True},
}

WITHOUT_EFFECT = {"global"}
"""What this chart only lets through."""


def resolved(schema: Schema) -> Schema:
    """Return the definition that a reference stands for."""
    while "$ref" in schema:
        schema = WHOLE["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema


def leaves(schema: Schema, path: Path = ()) -> Iterator[tuple[Path, Schema]]:
    """Yield every value that has no named values under it."""
    schema = resolved(schema)
    if not schema.get("properties") or path[-1:] in (("settings",), ("resources",), ("strategy",)):
        yield path, schema
        return
    for name, below in schema["properties"].items():
        yield from leaves(below, (*path, name))


LEAVES = dict(leaves(WHOLE))
every_value = pytest.mark.parametrize("path", LEAVES, ids=[".".join(path) for path in LEAVES])


@every_value
def test_a_value_changes_what_is_rendered(path: Path) -> None:
    if path[0] in WITHOUT_EFFECT:
        pytest.skip("the chart reads nothing of it")
    needed = merged(MINIMAL, needs(path))
    default = said(needed, api_versions=ALL_KINDS[:1])
    changed = said(merged(needed, nested(path, another(path, LEAVES[path]))), api_versions=ALL_KINDS[:1])
    assert "values don't meet the specifications" not in default.error + changed.error, changed.error
    assert changed != default
    is_only_a_check = path[0] == "database" and path[1].endswith("Connections")
    if not is_only_a_check:
        assert not changed.error, changed.error


@pytest.mark.parametrize("name", [path[1:] for path in LEAVES if path[0] == "workerDefaults"], ids=".".join)
def test_a_group_of_workers_has_every_value(name: Path) -> None:
    path = ("workerDefaults", *name)
    needed = merged(MINIMAL, needs(path))
    values = nested(("workers", "default", *name), another(path, LEAVES[path]))
    from_defaults = said(merged(needed, nested(path, another(path, LEAVES[path]))), api_versions=ALL_KINDS[:1])
    assert said(merged(needed, values), api_versions=ALL_KINDS[:1]) == from_defaults


@every_value
def test_a_value_has_a_comment(path: Path) -> None:
    assert path in commented(), f"say above {'.'.join(path)} in values.yaml what it is for"


def test_values_and_schema_name_the_same() -> None:
    assert {path for path in commented() if path in LEAVES} == set(LEAVES)
    assert commented() - set(LEAVES) <= {path[:length] for path in LEAVES for length in range(1, len(path))}


def test_every_object_of_the_schema_is_closed() -> None:
    assert [path for path, schema in objects(WHOLE) if schema.get("additionalProperties") is not False] == []


@pytest.mark.parametrize(
    "path", sorted({path[:length] for path in LEAVES for length in range(len(path))}), ids=lambda p: ".".join(p) or "-"
)
def test_an_unknown_name_is_refused(path: Path) -> None:
    if path == ("global",):
        pytest.skip("a parent chart may write anything into it")
    assert "unknownValue" in refusal(merged(MINIMAL, nested((*path, "unknownValue"), 1)))


def test_the_settings_are_those_of_the_code() -> None:
    written = WHOLE["definitions"]["settings"]
    assert written == settings_schema(), "write it again: python -m tests.charts.settings_schema"


def test_every_setting_is_in_the_chart_once() -> None:
    every = {name for name, _ in variables()}
    assert set(WHOLE["definitions"]["settings"]["properties"]) | FROM_OTHER_VALUES | NEVER == every


def test_the_chart_sets_no_variable_that_does_not_exist() -> None:
    known = {name for name, _ in variables()}
    values = [MINIMAL, merged(MINIMAL, {"kafka": SASL | TLS, "database": {"host": "db"}})]
    for objects_ in map(render, values):
        for deployment in of_kind(objects_, "Deployment"):
            variables_of_pod = environment(objects_, deployment["metadata"]["name"])
            assert {name for name in variables_of_pod if name.startswith("HEADRACE_")} <= known


def test_every_setting_of_its_own_is_set_somewhere() -> None:
    values = merged(MINIMAL, {"kafka": SASL | TLS | {"clientRack": "a"}, "database": {"host": "db"}})
    embedded = {"mode": "all", "ingest": POOL, "embedded": {"enabled": True}, "apiKeys": {"allowUnauthenticated": True}}
    found = environment(render(values), "-ingest") | environment(render(values), "-default")
    found |= environment(render(embedded), "-ingest")
    assert FROM_OTHER_VALUES - set(found) == {"HEADRACE_ROLE"}, "the role is an argument of the command"


def needs(path: Path) -> dict[str, Any]:
    """Return what the value needs, by the longest beginning of its path that NEEDS names."""
    for length in range(len(path), 0, -1):
        found = NEEDS.get(".".join(path[:length]))
        if found is not None:
            return found
    return {}


def another(path: Path, schema: Schema) -> Any:
    """Return a value that is valid and not the default."""
    name = ".".join(path)
    if name in SET:
        return SET[name]
    if path[-1] in BY_NAME:
        return BY_NAME[path[-1]]
    default = default_of(path)
    if "enum" in schema:
        return next(each for each in schema["enum"] if each != default and each != "auto")
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "boolean":
        return not default
    if kind in ("integer", "number"):
        return _another_number(schema, default)
    if kind == "array":
        return ["another"]
    if kind == "object":
        return {"another": "value"}
    return f"{default}x" if default else "another"


def _another_number(schema: Schema, default: Any) -> Any:
    if isinstance(default, float):
        return default / 2
    higher = default + 1
    return higher if higher <= schema.get("maximum", higher) else default - 1


def default_of(path: Path) -> Any:
    """Return what values.yaml has."""
    value: Any = defaults()
    for name in path:
        value = value[name]
    return value


@cache
def defaults() -> dict[str, Any]:
    """Return values.yaml, read by Helm."""
    (found,) = to_json([(CHART / "values.yaml").read_text()])
    return found


def nested(path: Path, value: Any) -> dict[str, Any]:
    """Return the value under its path."""
    for name in reversed(path):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def commented() -> set[Path]:
    """Return the path of every value in values.yaml that has a comment above it, or above its group of probes."""
    found: set[Path] = set()
    stack: list[tuple[int, str]] = []
    is_explained = False
    for line in (CHART / "values.yaml").read_text().splitlines():
        if not line.strip():
            is_explained = False
        elif line.strip().startswith("#"):
            is_explained = True
        elif key := re.match(r"( *)([\w.]+):(.*)", line):
            indent = len(key[1])
            stack = [each for each in stack if each[0] < indent]
            stack.append((indent, key[2]))
            if is_explained:
                found.add(tuple(name for _, name in stack))
            if inner := re.fullmatch(r" \{(.*)\}", key[3]):  # a small map on one line shares its comment
                names = re.findall(r"(?:^|, )(\w+): ", re.sub(r"\{.*?\}", "", inner[1]))
                found |= {(*(name for _, name in stack), name) for name in names if is_explained}
            is_explained = False
    return found


def objects(schema: Schema, path: Path = ()) -> Iterator[tuple[Path, Schema]]:
    """Yield every object with named values."""
    schema = resolved(schema)
    if schema.get("properties"):
        yield path, schema
        for name, below in schema["properties"].items():
            yield from objects(below, (*path, name))
