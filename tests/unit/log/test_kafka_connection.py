"""Errors of the Kafka client in our words, and its options from the settings."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    LeaderNotAvailableError,
    NotEnoughReplicasError,
    OutOfOrderSequenceNumber,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from pydantic import SecretStr

from headrace.errors import ConfigurationError, TransportError
from headrace.log.kafka_connection import client_options, translate
from headrace.settings import KafkaSettings

OPTIONS: dict[str, Any] = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-256",
    "sasl_plain_username": "mill",
}


def _untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_message = "self-signed certificate"  # as OpenSSL's own errors have
    return error


@pytest.mark.parametrize(
    ("error", "kind", "named"),
    [
        (SaslAuthenticationFailed("no"), ConfigurationError, "HEADRACE_KAFKA_PASSWORD"),
        (UnsupportedSaslMechanismError("no"), ConfigurationError, "HEADRACE_KAFKA_SASL_MECHANISM=SCRAM-SHA-256"),
        (_untrusted(), ConfigurationError, "HEADRACE_KAFKA_TLS_CA_FILE"),
        (ssl.SSLError("wrong version number"), ConfigurationError, "HEADRACE_KAFKA_SECURITY_PROTOCOL=SASL_SSL"),
        (TopicAuthorizationFailedError("wallets"), TransportError, "ACL"),
        (LeaderNotAvailableError("wallets[3]"), TransportError, "no leader for wallets[3]"),
        (NotEnoughReplicasError(), TransportError, "min.insync.replicas"),
        (OutOfOrderSequenceNumber("wallets[3]"), TransportError, "answered with an error"),
        (socket.gaierror(-2, "Name or service not known"), TransportError, "HEADRACE_LOG"),
        (ConnectionRefusedError(), TransportError, "HEADRACE_LOG"),
        (KafkaConnectionError("closed"), TransportError, "HEADRACE_LOG"),
        (TimeoutError(), TransportError, "HEADRACE_LOG"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_is_one_sentence_that_names_the_setting(error: Exception, kind: type[Exception], named: str) -> None:
    ours = translate(error, "kafka:9092", OPTIONS)

    assert type(ours) is kind
    assert named in str(ours)
    assert str(ours).endswith((".", "?"))
    assert "\n" not in str(ours)
    assert ours.__cause__ is error


def test_the_reason_is_found_behind_the_error() -> None:
    closed = KafkaConnectionError("closed")
    closed.__cause__ = SaslAuthenticationFailed("no")

    assert isinstance(translate(closed, "kafka:9092", OPTIONS), ConfigurationError)


def test_options_without_security_hold_no_log_in() -> None:
    options = client_options(["a:1", "b:2"], KafkaSettings(request_timeout_seconds=2.5))

    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert options["request_timeout_ms"] == 2500
    assert not any(name.startswith("sasl") for name in options)


def test_options_with_a_log_in_take_the_password_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    settings = KafkaSettings(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", username="mill", password_file=file
    )

    assert client_options(["a:1"], settings)["sasl_plain_password"] == "secret"


def test_a_log_in_without_a_password_is_refused() -> None:
    settings = KafkaSettings(security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", username="mill")

    with pytest.raises(ConfigurationError, match="HEADRACE_KAFKA_PASSWORD"):
        client_options(["a:1"], settings)


def test_tls_uses_the_systems_authorities_where_none_is_named() -> None:
    settings = KafkaSettings(
        security_protocol="SASL_SSL", sasl_mechanism="PLAIN", username="mill", password=SecretStr("secret")
    )

    context = client_options(["a:1"], settings)["ssl_context"]

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
