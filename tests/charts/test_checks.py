"""Values that do not fit together are refused, each with the sentence that says what to change."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.charts.helm import CHART, MINIMAL, merged, refusal

NOTHING: dict[str, Any] = {}
KEDA = {"enabled": True, "topics": {"wallets": {"partitions": 6}}}
EMBEDDED = {
    "mode": "all",
    "ingest": {"pool": {"maxSize": 20}},
    "embedded": {"enabled": True},
    "apiKeys": {"allowUnauthenticated": True},
}


def group(**own: Any) -> dict[str, Any]:
    """Return the smallest values with a group of workers that KEDA scales."""
    keda = merged(KEDA, own.pop("keda", {}))
    return merged(MINIMAL, {"workers": {"wallets": {"subscriptions": ["wallets"], "keda": keda} | own}})


def minimal(**values: Any) -> dict[str, Any]:
    """Return the smallest values with others over them."""
    return merged(MINIMAL, values)


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "embedded in split mode": (merged(EMBEDDED, {"mode": "split"}), "set mode: all, or name kafka.brokers"),
    "embedded and Kafka": (merged(EMBEDDED, {"kafka": {"brokers": ["k:1"]}}), "choose where the events are kept"),
    "embedded and scaled": (merged(EMBEDDED, {"ingest": {"autoscaling": {"enabled": True}}}), "exactly one pod"),
    "no brokers": (NOTHING, "kafka.brokers is empty: name host:port of a broker"),
    "no database": ({"kafka": {"brokers": ["k:1"]}}, "database.existingSecret is empty"),
    "no API keys": (minimal(apiKeys={"existingSecret": ""}), "apiKeys.existingSecret is empty"),
    "SASL without a login": (minimal(kafka={"securityProtocol": "SASL_SSL"}), "SASL_SSL needs kafka.sasl.mechanism"),
    "certificates without TLS": (minimal(kafka={"tls": {"existingSecret": "t"}}), "choose SSL or SASL_SSL"),
    "half a certificate": (minimal(kafka={"tls": {"certKey": "c"}}), "set both, or none"),
    "slow heartbeats": (minimal(kafka={"heartbeatSeconds": 16}), "(16) must be at most a third of"),
    "verified by nobody": (minimal(database={"sslmode": "verify-full"}), "needs database.tls.existingSecret"),
    "an authority for an address": (minimal(database={"tls": {"existingSecret": "t"}}), "with database.host only"),
    "all, and not served": (minimal(mode="all", ingest={"enabled": False}), "mode: all runs in the pods of ingest"),
    "all, scaled on CPU": (
        minimal(mode="all", ingest={"autoscaling": {"enabled": True}}),
        "mode: all would be scaled on CPU",
    ),
    "all, with few connections": (minimal(mode="all"), "mode: all applies events with ingest.pool.maxSize (5)"),
    "fewest above most": (minimal(ingest={"autoscaling": {"minReplicas": 11}}), "is above ingest.autoscaling.max"),
    "a route to nobody": (
        minimal(ingest={"enabled": False}, ingress={"enabled": True, "hosts": ["a"]}),
        "lead to the pods of ingest",
    ),
    "no host": (minimal(ingress={"enabled": True}), "ingress.hosts is empty"),
    "no gateway": (minimal(httpRoute={"enabled": True}), "httpRoute.parentRefs is empty"),
    "every subscription, and one": (
        minimal(workers={"a": {"subscriptions": ["*"]}, "b": {"subscriptions": ["alerts"]}}),
        'workers.a.subscriptions has "*"',
    ),
    "a subscription twice": (
        minimal(workers={"a": {"subscriptions": ["alerts"]}, "b": {"subscriptions": ["alerts"]}}),
        "alerts is in workers.a and in workers.b",
    ),
    "no topics": (
        minimal(workers={"a": {"subscriptions": ["alerts"], "keda": {"enabled": True}}}),
        "workers.a.keda.topics is empty",
    ),
    "fewest above most, by KEDA": (group(keda={"minReplicas": 7}), "minReplicas is above its maxReplicas"),
    "zero pods": (group(keda={"minReplicas": 0}), "no parked event is tried again"),
    "Prometheus nowhere": (group(keda={"trigger": "prometheus"}), "needs keda.prometheusAddress"),
    "nobody to measure": (
        group(
            keda={
                "trigger": "prometheus",
                "prometheusAddress": "http://p",
                "minReplicas": 0,
                "acknowledgeTimersStop": True,
            }
        ),
        "needs keda.minReplicas of at least 1",
    ),
    "more pods than partitions": (group(keda={"maxReplicas": 7}), "(7) is above the partitions of wallets (6)"),
    "lag of everything": (group(subscriptions=["*"]), "name it in workers.wallets.subscriptions"),
    "a broker that KEDA does not find": (
        merged(group(), {"kafka": {"brokers": ["kafka.logs:9092", "kafka:9092"]}}),
        "find the broker kafka:9092, and KEDA asks from another one: write kafka.NAMESPACE",
    ),
    "too many connections": (
        minimal(ingest={"replicas": 20}),
        "would need 157 connections (ingest 25 pods x 5, workers.default 2 pods x 10, the migration 2, reserved 10)",
    ),
    "a variable of the chart": (
        minimal(extraEnv=[{"name": "HEADRACE_LOG", "value": "memory"}]),
        "extraEnv sets HEADRACE_LOG, which the chart sets",
    ),
    "a variable of a role": (
        minimal(ingest={"extraEnv": [{"name": "HEADRACE_DATABASE_POOL_SIZE", "value": "3"}]}),
        "ingest.extraEnv sets HEADRACE_DATABASE_POOL_SIZE, which the chart sets",
    ),
    "a variable of a group": (
        minimal(workers={"a": {"extraEnv": [{"name": "HEADRACE_SUBSCRIPTIONS", "value": "a"}]}}),
        "workers.a.extraEnv sets HEADRACE_SUBSCRIPTIONS, which the chart sets",
    ),
    "a setting past the schema": (
        minimal(extraEnv=[{"name": "HEADRACE_LOG_LEVEL", "value": "LOUD"}]),
        "put it into settings",
    ),
    "two monitors": (
        minimal(metrics={"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}),
        "every sum would be doubled",
    ),
    "no collector": (minimal(otel={"enabled": True}), "otel.endpoint is empty"),
    "cut off from Kafka": (minimal(networkPolicy={"enabled": True}), "would cut the pods off: set"),
    "cut off from the collector": (
        minimal(
            otel={"enabled": True, "endpoint": "http://c"},
            networkPolicy={"enabled": True, "egress": {"kafka": [{}], "postgres": [{}]}},
        ),
        "cut the pods off from the collector",
    ),
    "an alert that does not exist": (minimal(alerts={"disabled": ["HeadraceMoon"]}), "names HeadraceMoon"),
}

SCHEMA_CASES: dict[str, dict[str, Any]] = {
    "a broker without a port": minimal(kafka={"brokers": ["kafka"]}),
    "a misspelt setting": minimal(settings={"HEADRACE_ENGINE_BATCH_RECORD": 1}),
    "a setting out of bounds": minimal(settings={"HEADRACE_ENGINE_BATCH_RECORDS": 0}),
    "a password": minimal(settings={"HEADRACE_KAFKA_PASSWORD": "river"}),
    "an objective between two buckets": minimal(alerts={"slo": {"freshnessSeconds": 3}}),
    "a long name of a group": minimal(workers={"g" * 25: {}}),
    "a digest that is none": minimal(image={"digest": "latest"}),
}


@pytest.mark.parametrize(("values", "sentence"), CASES.values(), ids=CASES)
def test_values_that_do_not_fit_are_refused(values: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(values)


@pytest.mark.parametrize("values", SCHEMA_CASES.values(), ids=SCHEMA_CASES)
def test_the_schema_refuses(values: dict[str, Any]) -> None:
    assert "values don't meet the specifications of the schema" in refusal(values)


def test_every_refusal_has_a_case() -> None:
    text = (CHART / "templates" / "_checks.tpl").read_text()
    sentences = re.findall(r'\{\{- fail (?:\(printf )?"((?:[^"\\]|\\.)*)"', text)
    assert len(sentences) == text.count("fail ") - len(re.findall(r"`fail`|every `fail", text))
    said = " ".join(refusal(values) for values, _ in CASES.values())
    patterns = [
        re.escape(sentence.replace('\\"', '"')).replace("%s", ".*").replace("%v", ".*") for sentence in sentences
    ]
    assert [pattern for pattern in patterns if not re.search(pattern, said)] == []
