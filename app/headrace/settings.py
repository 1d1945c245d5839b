"""Every setting, read once from the environment (`HEADRACE_...`): one frozen class per component.

All faults are reported at once, each with its variable, its value and what is valid. Unknown `HEADRACE_` variables are
faults too, except those that Kubernetes injects for a Service named `headrace...` (service links).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from headrace.errors import ConfigurationError

PREFIX = "HEADRACE_"
EMBEDDED = "embedded"
MEMORY = "memory"
SQLALCHEMY = "postgresql+asyncpg://"
"""How SQLAlchemy writes an address of Postgres that asyncpg connects to."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
Role = Literal["all", "ingest", "worker"]

_SERVICE_LINK = re.compile(r"HEADRACE(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_[A-Z0-9_]+)")
_PORT_LINK = re.compile(r"(tcp|udp|sctp)://")
"""The value of `HEADRACE_..._PORT` as Kubernetes injects it; a name alone could be a misspelt setting."""


def _component(prefix: str) -> SettingsConfigDict:
    return SettingsConfigDict(env_prefix=prefix, frozen=True, extra="ignore", case_sensitive=False)


class KafkaSettings(BaseSettings):
    """`HEADRACE_KAFKA_...`: how Headrace talks to the Kafka cluster; used if HEADRACE_LOG is `kafka://...`."""

    model_config = _component("HEADRACE_KAFKA_")

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
        300.0, ge=10, description="A worker that has not polled for this many seconds is removed from its group."
    )
    request_timeout_seconds: float = Field(
        30.0, ge=1, description="A request fails if the broker has not answered after this many seconds."
    )
    linger_seconds: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Seconds that the producer waits for more records before it sends a batch. With 0 it sends what "
        "has gathered while the last batch was on its way. Raise it to send fewer, larger batches.",
    )
    batch_bytes: int = Field(262_144, ge=1_024, description="The producer's largest batch per partition, in bytes.")
    max_record_bytes: int = Field(
        1_048_576,
        ge=1_024,
        description="An event that is larger than this many bytes is refused. Keep it equal to the brokers' "
        "message.max.bytes.",
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "zstd", description="How the producer compresses batches."
    )
    fetch_bytes: int = Field(
        2_097_152,
        ge=1_024,
        description="Bytes that a worker reads ahead per partition. Lower it if workers need too much memory.",
    )
    client_rack: str | None = Field(
        None, description="The rack of this client. Set it to read from the nearest replica."
    )
    replication_factor: int = Field(
        -1, ge=-1, description="Replicas of topics that Headrace creates; -1 takes the brokers' default."
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
        return _read_secret("HEADRACE_KAFKA_PASSWORD_FILE", self.password_file, self.password)


class DatabaseSettings(BaseSettings):
    """`HEADRACE_DATABASE_...`: connections to Postgres; the address itself is HEADRACE_DATABASE."""

    model_config = _component("HEADRACE_DATABASE_")

    password: SecretStr | None = Field(None, description="The password, if it is not part of the address.")
    password_file: Path | None = Field(None, description="The file that holds the password, such as a mounted Secret.")
    pool_size: int = Field(
        10,
        ge=2,
        le=200,
        description="The most connections of this process. Each partition that is being applied needs one, and two "
        "more serve queries and housekeeping.",
    )
    connect_timeout_seconds: float = Field(
        10.0, gt=0, description="An attempt to connect fails after this many seconds."
    )
    statement_timeout_seconds: float = Field(
        30.0,
        gt=0,
        description="Postgres cancels a statement that takes longer than this many seconds, also a handler's own SQL.",
    )
    idle_in_transaction_seconds: float = Field(
        15.0,
        gt=0,
        description="Postgres ends a session that is silent within a transaction for this many seconds, so that the "
        "locks of a frozen process come free. Keep it below HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS.",
    )
    migrate_on_start: bool = Field(
        True,
        description="Whether a start applies the `pre` migrations. Turn it off if `headrace migrate` runs before.",
    )

    def read_password(self) -> str | None:
        """Return the password, from the file if one is named. Raises: ConfigurationError (file unreadable)."""
        return _read_secret("HEADRACE_DATABASE_PASSWORD_FILE", self.password_file, self.password)


class EngineSettings(BaseSettings):
    """`HEADRACE_ENGINE_...`: batches, retries and memory of the consumers."""

    model_config = _component("HEADRACE_ENGINE_")

    batch_records: int = Field(
        10_000, ge=1, le=100_000, description="The most records of one partition that one transaction applies."
    )
    batch_bytes: int = Field(
        16_777_216,
        ge=65_536,
        le=1_073_741_824,
        description="The most bytes of records in one transaction and in one fetch; a single larger record is still "
        "taken. Lower it if workers need too much memory.",
    )
    batch_seconds: float = Field(
        30.0,
        gt=0,
        description="When a partition moves to another process, its worker has this many seconds to finish the "
        "transaction that is running; then the transaction is rolled back, and the next owner repeats it.",
    )
    handler_seconds: float = Field(
        30.0,
        gt=0,
        description="The time limit of one handler call, in seconds; then the event is parked. An async handler is "
        "cancelled, the thread of a synchronous one is abandoned. Raise it, with HEADRACE_ENGINE_BATCH_SECONDS and "
        "HEADRACE_ENGINE_STUCK_SECONDS, if handlers rightly take longer. If it is unset, it is "
        "never longer than those two.",
    )
    handler_threads: int = Field(
        8,
        ge=1,
        le=256,
        description="Threads for synchronous handlers, per subscription. Raise it if handlers wait for I/O and a "
        "process owns more partitions of the subscription than this.",
    )
    stuck_seconds: float = Field(
        60.0,
        gt=0,
        description="A worker that has something to do and has done nothing for this many seconds is abandoned, and a "
        "new one takes over. A handler that runs is judged by HEADRACE_ENGINE_HANDLER_SECONDS instead.",
    )
    dedupe_window_ids: int = Field(
        200_000,
        ge=0,
        description="Event ids that are remembered per partition, at about 130 bytes each. Raise it if duplicates come "
        "later than this many events after the first.",
    )
    state_cache_keys: int = Field(
        50_000,
        ge=0,
        description="States that are kept in memory per partition; others are read from Postgres when they are needed.",
    )
    retry_attempts: int = Field(
        12, ge=1, description="How many times a failing event is tried before it becomes a dead letter."
    )
    retry_first_seconds: float = Field(
        0.5,
        gt=0,
        description="Seconds before the first retry. The wait doubles with each failure.",
    )
    retry_max_seconds: float = Field(300.0, gt=0, description="The longest wait between two retries, in seconds.")
    retry_jitter: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The part of a wait that chance takes off, from 0 to 1, so that keys which failed at one moment do "
        "not come back at one moment.",
    )
    retry_at_end: Literal["dead_letter", "hold"] = Field(
        "dead_letter",
        description="What happens after the last attempt: `dead_letter`, and the key continues; or `hold`: the key "
        "waits until an operator retries it.",
    )
    outage_keys: int = Field(
        20,
        ge=0,
        description="So many different keys of a handler have to fail within 30 s, and 70 % of its keys, before its "
        "partitions wait for the end of an outage. With 0 only exceptions that its policy names as one make them wait.",
    )
    emits_pending: int = Field(
        20_000,
        ge=1,
        description="A partition waits when this many emitted events of it are not yet acknowledged by the log.",
    )
    drain_seconds: float = Field(
        30.0,
        gt=0,
        description="Seconds that a stop gives to running batches and requests. The other steps of a stop add at most "
        "30 s; let the grace period of a pod be longer than both.",
    )
    ledger_days: int = Field(
        14,
        ge=1,
        description="Days that the ledger is kept. Rows stay longer if emitted events or a dedupe window need them.",
    )
    audit_seconds: float = Field(
        3600.0,
        ge=1,
        le=86_400,
        description="Seconds between two audits of a subscription: one process at a time compares claims, ledger, "
        "lanes, dead letters and states. Lower it to hear of a broken promise sooner.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "handler_seconds" not in self.model_fields_set:
            longest = min(self.batch_seconds, self.stuck_seconds)
            object.__setattr__(self, "handler_seconds", min(self.handler_seconds, longest))
        for smaller, larger in (
            ("retry_first_seconds", "retry_max_seconds"),
            ("handler_seconds", "batch_seconds"),
            ("handler_seconds", "stuck_seconds"),
        ):
            if getattr(self, smaller) > getattr(self, larger):
                raise ValueError(f"HEADRACE_ENGINE_{smaller.upper()} must be at most HEADRACE_ENGINE_{larger.upper()}")
        return self


class IngestSettings(BaseSettings):
    """`HEADRACE_INGEST_...`: what is accepted over HTTP."""

    model_config = _component("HEADRACE_INGEST_")

    max_body_bytes: int = Field(
        1_048_576, ge=1_024, description="A request whose body is larger than this many bytes is answered 413."
    )
    max_batch_events: int = Field(10_000, ge=1, description="A batch of more events than this is answered 413.")
    max_in_flight: int = Field(
        1_000,
        ge=1,
        description="The most requests at once whose bodies are being read or whose events wait for the log; further "
        "ones are answered 429.",
    )
    timeout_seconds: float = Field(
        10.0, gt=0, description="A publish that the log has not acknowledged after this many seconds is answered 503."
    )
    allow_unauthenticated: bool = Field(
        False,
        description="Whether other addresses than loopback are served without API keys. If so, ANYBODY WHO REACHES THE "
        "PORT MAY PUBLISH AND OPERATE.",
    )
    max_streams: int = Field(
        50, ge=1, description="The most open `GET /events/stream` connections; further ones are answered 429."
    )
    max_header_bytes: int = Field(
        65_536,
        ge=16_384,
        description="A request whose line and headers have more bytes than this is answered 431 by `headrace run`.",
    )
    header_seconds: float = Field(
        10.0, gt=0, description="`headrace run` ends a connection whose request line and headers take longer than this."
    )
    body_seconds: float = Field(
        30.0,
        gt=0,
        description="An event's body that takes longer than this is answered 408; `headrace run` ends any connection "
        "whose body brings less than 16 KiB in this time.",
    )
    max_connections: int = Field(
        2_000, ge=1, description="The most open connections of `headrace run`; further ones are answered 503."
    )


class Settings(BaseSettings):
    """`HEADRACE_...`: the platform as a whole, and its components."""

    model_config = _component(PREFIX)

    log: str = Field(
        EMBEDDED,
        description="Where events are kept: `embedded` (in the database, for one process), `memory` (gone with the "
        "process), or `kafka://host:port[,host:port]`.",
    )
    database: SecretStr = Field(
        SecretStr(EMBEDDED),
        description="Where state is kept: `embedded` (a PostgreSQL that Headrace starts) or "
        "`postgresql://user@host:port/name`; `postgresql+asyncpg://` is understood as well.",
    )
    data_dir: Path = Field(
        Path(".headrace"), description="The folder in which the embedded log and database keep their files."
    )
    embedded_log_days: int = Field(
        7,
        ge=1,
        le=36_500,
        description="Days that the embedded log keeps an event after every subscription has applied it.",
    )
    partitions: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Partitions of every topic. A missing topic is created with this many (6 if unset); an existing "
        "one that has another number is refused.",
    )
    dead_letter_days: int = Field(
        30,
        ge=1,
        le=36_500,
        description="Days that a dead letter is kept after it was replayed or discarded; open ones are kept.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="JSON file with a list of {key, scopes}. It guards every route but health, and is read again when "
        "it changes.",
    )
    management_port: int = Field(
        9000,
        ge=0,
        le=65_535,
        description="Port of /metrics and /health for probes; 0 takes a free one. If it is unset and another process "
        "has port 9000, a free one is used and announced, unless HEADRACE_MANAGEMENT_HOST serves other machines.",
    )
    management_host: str = Field("127.0.0.1", description="Address of the management port. Set 0.0.0.0 in a pod.")
    role: Role = Field(
        "all", description="What the process does: `all`, `ingest` (HTTP only) or `worker` (handlers only)."
    )
    subscriptions: str = Field(
        "*", description="The subscriptions that this worker runs, separated by commas; `*` runs all."
    )
    log_format: Literal["auto", "json", "console", "none"] = Field(
        "auto",
        description="How log entries are written: `json`, `console` (readable), `auto` (readable on a terminal, else "
        "JSON) or `none` (the application configures logging itself, and Headrace leaves it alone).",
    )
    log_handler_errors: Literal["full", "message", "type"] = Field(
        "full",
        description="What is logged of an exception that your code raises: `full` with its traceback, its `message`, "
        "or its `type` alone, since a text of yours may quote data.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="The least severe entry that is logged. Without effect if HEADRACE_LOG_FORMAT is `none`."
    )

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    database_options: DatabaseSettings = Field(default_factory=DatabaseSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    ingest: IngestSettings = Field(default_factory=IngestSettings)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.log not in (EMBEDDED, MEMORY) and not self.is_kafka:
            raise ValueError("HEADRACE_LOG must be embedded, memory or kafka://host:port[,host:port]")
        if "@" in self.log:
            raise ValueError(
                "HEADRACE_LOG holds no user and no password; "
                "set HEADRACE_KAFKA_USERNAME and HEADRACE_KAFKA_PASSWORD_FILE"
            )
        if not all(_is_broker(broker) for broker in self.kafka_brokers):
            raise ValueError("HEADRACE_LOG=kafka:// needs host:port for every broker, separated by commas")
        if not self.is_kafka and self.role != "all":
            raise ValueError(f"HEADRACE_ROLE={self.role} needs a log that processes share: HEADRACE_LOG=kafka://...")
        if not self.is_database_embedded and not _is_postgres(self.database.get_secret_value()):
            raise ValueError("HEADRACE_DATABASE must be embedded or postgresql://user@host:port/name")
        if self.is_kafka and self.engine.batch_seconds >= self.kafka.max_poll_seconds:
            raise ValueError("HEADRACE_ENGINE_BATCH_SECONDS must be below HEADRACE_KAFKA_MAX_POLL_SECONDS")
        if self.is_kafka and self.database_options.idle_in_transaction_seconds >= self.kafka.session_timeout_seconds:
            raise ValueError(
                "HEADRACE_DATABASE_IDLE_IN_TRANSACTION_SECONDS must be below HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS"
            )
        return self

    @property
    def is_kafka(self) -> bool:
        """True if the log is Kafka."""
        return self.log.startswith("kafka://")

    @property
    def is_database_embedded(self) -> bool:
        """True if Headrace starts a PostgreSQL of its own."""
        return self.database.get_secret_value() == EMBEDDED

    @property
    def kafka_brokers(self) -> list[str]:
        """The brokers' host:port list; empty if the log is not Kafka."""
        return [b.strip() for b in self.log.removeprefix("kafka://").rstrip("/").split(",")] if self.is_kafka else []

    @property
    def database_url(self) -> str:
        """The Postgres address with the password in it. Raises: ConfigurationError (password file unreadable)."""
        url = self.database.get_secret_value()
        if url.startswith(SQLALCHEMY):
            url = "postgresql://" + url.removeprefix(SQLALCHEMY)
        password = self.database_options.read_password()
        parts = urlsplit(url)
        if password is None or parts.password is not None:
            return url
        user, _, host = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))

    @property
    def may_move_management_port(self) -> bool:
        """True if another management port will do: nobody has named one, and only this machine can reach it."""
        return "management_port" not in self.model_fields_set and self.management_host in LOOPBACK

    def runs(self, subscription: str) -> bool:
        """True if this process runs the subscription."""
        return "*" in self.subscription_names or subscription in self.subscription_names

    @property
    def subscription_names(self) -> set[str]:
        """The names in HEADRACE_SUBSCRIPTIONS; `*` stands for all."""
        return {name.strip() for name in self.subscriptions.split(",")}


COMPONENTS: dict[str, type[BaseSettings]] = {
    "kafka": KafkaSettings,
    "database_options": DatabaseSettings,
    "engine": EngineSettings,
    "ingest": IngestSettings,
}


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the environment. Raises: ConfigurationError that lists every fault, one a line."""
    faults = [f"{name}: no such setting{_closest(name)}" for name in _unknown_variables()]
    parts: dict[str, Any] = {}
    for field, component in COMPONENTS.items():
        try:
            parts[field] = component()
        except ValidationError as error:
            faults += _explain(component, error)
            parts[field] = component.model_construct()  # its defaults, so that the others are checked, too
    try:
        settings = Settings(**parts, **(overrides or {}))
    except ValidationError as error:
        faults += _explain(Settings, error)
    except SettingsError:
        pass  # a variable with a component's name, HEADRACE_KAFKA: no such setting, and named above
    if len(faults) == 1:
        raise ConfigurationError(f"a setting is wrong: {faults[0]}")
    if faults:
        raise ConfigurationError("the settings are wrong:\n  " + "\n  ".join(faults))
    return settings


def variables() -> Iterator[tuple[str, Any]]:
    """Yield (variable, field) of every setting, for the reference and the chart's test."""
    components: list[type[BaseSettings]] = [Settings, *COMPONENTS.values()]
    for component in components:
        prefix = component.model_config.get("env_prefix", "")
        for name, field in component.model_fields.items():
            if name not in COMPONENTS:
                yield f"{prefix}{name}".upper(), field


def _unknown_variables() -> list[str]:
    known = {name for name, _ in variables()}
    return [
        name
        for name, value in os.environ.items()
        if name.startswith(PREFIX)
        and not name.startswith("HEADRACE_TEST_")
        and name not in known
        and not _SERVICE_LINK.fullmatch(name)
        and not (name.endswith("_PORT") and _PORT_LINK.match(value))
    ]


def _closest(name: str) -> str:
    tails = {known.removeprefix(PREFIX): known for known, _ in variables()}
    found = difflib.get_close_matches(name.removeprefix(PREFIX), tails, n=1)
    return f"; did you mean {tails[found[0]]}?" if found else ""


def _is_broker(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and " " not in host and port.isdecimal() and 0 < int(port) <= 65_535


def _is_postgres(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("postgresql", "postgres", "postgresql+asyncpg")
    except ValueError:
        return False


def _explain(component: type[BaseSettings], error: ValidationError) -> list[str]:
    prefix = component.model_config.get("env_prefix", "")
    faults = []
    for fault in error.errors(include_url=False):
        if not fault["loc"]:
            faults.append(str(fault["msg"]).removeprefix("Value error, "))
            continue
        name = str(fault["loc"][0])
        field = component.model_fields.get(name)
        secret = field is not None and "Secret" in str(field.annotation)
        value = "" if secret else f"={fault['input']!r}"
        faults.append(f"{prefix}{name}".upper() + f"{value}: {fault['msg']}")
    return faults


def _read_secret(variable: str, file: Path | None, value: SecretStr | None) -> str | None:
    if file is not None:
        try:
            return file.read_text().rstrip("\n")
        except OSError as error:
            raise ConfigurationError(f"{variable}={file} cannot be read: {error.strerror}.") from error
    return value.get_secret_value() if value is not None else None
