"""The platform as a whole, with its components."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from headrace.settings.component import component
from headrace.settings.database import DatabaseSettings
from headrace.settings.engine import EngineSettings
from headrace.settings.ingest import IngestSettings
from headrace.settings.kafka import KafkaSettings
from headrace.settings.schema_registry import SchemaRegistrySettings

PREFIX = "HEADRACE_"
EMBEDDED = "embedded"
MEMORY = "memory"
SQLALCHEMY = "postgresql+asyncpg://"
"""How SQLAlchemy writes an address of Postgres that asyncpg connects to."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
Role = Literal["all", "ingest", "worker"]


class Settings(BaseSettings):
    """`HEADRACE_...`: the platform as a whole, and its components."""

    model_config = component(PREFIX)

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
    schema_registry: SchemaRegistrySettings = Field(default_factory=SchemaRegistrySettings)

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
        if not _is_host(self.management_host):
            raise ValueError(f"HEADRACE_MANAGEMENT_HOST={self.management_host!r} must be a name or an address")
        if not self.is_kafka and self.role != "all":
            raise ValueError(f"HEADRACE_ROLE={self.role} needs a log that processes share: HEADRACE_LOG=kafka://...")
        if not self.is_database_embedded and not _is_postgres(self.database.get_secret_value()):
            raise ValueError(
                "HEADRACE_DATABASE must be embedded or postgresql://user@host:port/name, in which a password has its "
                "/, ?, # and @ percent-encoded"
            )
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


def _is_broker(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and " " not in host and _is_host(host) and port.isdecimal() and 0 < int(port) <= 65_535


def _is_host(name: str) -> bool:
    """True if the network can be asked for the name: Python raises for one that no DNS could hold, such as `a..b`."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _is_postgres(url: str) -> bool:
    """True for an address that is read as it was meant: a sign of a password that cuts it off would be told as a port,
    a host or a parameter, and the password with it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    hosts = [host.rpartition("]")[2] for host in parts.netloc.rpartition("@")[2].split(",")]
    has_ports = all(port.isdecimal() or not port for port in (host.partition(":")[2] for host in hosts))
    has_names = all("=" in field for field in parts.query.split("&") if field)
    is_whole = "#" not in url and "@" not in parts.path and has_ports and has_names
    return is_whole and parts.scheme in ("postgresql", "postgres", "postgresql+asyncpg")
