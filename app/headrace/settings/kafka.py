"""How Headrace talks to the Kafka cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from headrace.settings.component import component, read_secret


class KafkaSettings(BaseSettings):
    """`HEADRACE_KAFKA_...`: how Headrace talks to the Kafka cluster; used if HEADRACE_LOG is `kafka://...`."""

    model_config = component("HEADRACE_KAFKA_")

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How connections are secured. Set it to what the cluster's listener asks for."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="How the user logs in. Needed with SASL_PLAINTEXT and SASL_SSL."
    )
    username: str | None = Field(None, description="The SASL user.")
    password: SecretStr | None = Field(None, description="The SASL password. Prefer HEADRACE_KAFKA_PASSWORD_FILE.")
    password_file: Path | None = Field(
        None, description="The file that holds the SASL password, such as a mounted Secret."
    )
    tls_ca_file: Path | None = Field(
        None, description="PEM file of the authority that signed the brokers' certificates."
    )
    tls_cert_file: Path | None = Field(None, description="PEM file of this client's certificate, for mutual TLS.")
    tls_key_file: Path | None = Field(None, description="PEM file of this client's key, for mutual TLS.")
    session_timeout_seconds: float = Field(
        45.0,
        ge=6,
        le=1800,
        description="A worker that sends no heartbeat for this many seconds loses its partitions to another one. Raise "
        "it if overloaded nodes lose partitions; lower it to replace a dead worker sooner.",
    )
    heartbeat_seconds: float = Field(
        1.0,
        gt=0,
        le=60,
        description="Seconds between two heartbeats; at most a third of the session timeout. Workers hear by them that "
        "another one comes or goes, so this is how long a change takes, and how long a worker that stops goes on.",
    )
    max_poll_seconds: float = Field(
        300.0,
        ge=10,
        le=86_400,
        description="A worker that has not polled for this many seconds is removed from its group.",
    )
    request_timeout_seconds: float = Field(
        30.0, ge=1, le=3_600, description="A request fails if the broker has not answered after this many seconds."
    )
    linger_seconds: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Seconds that the producer waits for more records before it sends a batch. With 0 it sends what "
        "has gathered while the last batch was on its way. Raise it to send fewer, larger batches.",
    )
    batch_bytes: int = Field(
        1_000_000, ge=1_024, le=1_073_741_824, description="The producer's largest batch per partition, in bytes."
    )
    max_record_bytes: int = Field(
        1_048_576,
        ge=1_024,
        le=1_073_741_824,
        description="An event that is larger than this many bytes is refused. Keep it equal to the brokers' "
        "message.max.bytes.",
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "zstd", description="How the producer compresses batches."
    )
    fetch_bytes: int = Field(
        2_097_152,
        ge=1_024,
        le=1_073_741_824,
        description="Bytes that a worker reads ahead per partition. Lower it if workers need too much memory.",
    )
    client_rack: str | None = Field(
        None, description="The rack of this client. Set it to read from the nearest replica."
    )
    replication_factor: int = Field(
        -1, ge=-1, le=32_767, description="Replicas of topics that Headrace creates; -1 takes the brokers' default."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.heartbeat_seconds * 3 > self.session_timeout_seconds:
            raise ValueError(
                "HEADRACE_KAFKA_HEARTBEAT_SECONDS must be at most a third of HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS"
            )
        if self.security_protocol.startswith("SASL") and not (self.sasl_mechanism and self.username):
            raise ValueError(
                f"{self.security_protocol} needs HEADRACE_KAFKA_SASL_MECHANISM and HEADRACE_KAFKA_USERNAME"
            )
        if self.tls_cert_file and not self.tls_key_file:
            raise ValueError("HEADRACE_KAFKA_TLS_CERT_FILE needs HEADRACE_KAFKA_TLS_KEY_FILE")
        return self

    def read_password(self) -> str | None:
        """Return the password, from the file if one is named. Raises: ConfigurationError (file unreadable)."""
        return read_secret("HEADRACE_KAFKA_PASSWORD_FILE", self.password_file, self.password)
