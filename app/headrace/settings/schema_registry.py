"""Where the schemas of other teams' records are."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from headrace.settings.component import component, read_secret


class SchemaRegistrySettings(BaseSettings):
    """`HEADRACE_SCHEMA_REGISTRY_...`: the schema registry that `events.decoder(topic, schemas=...)` asks."""

    model_config = component("HEADRACE_SCHEMA_REGISTRY_")

    url: str | None = Field(
        None,
        description="Address of a schema registry with Confluent's API, such as `https://registry:8081`. Needed if a "
        "decoder is declared with `schemas=`.",
    )
    username: str | None = Field(None, description="The user, or the API key, of HTTP basic authentication.")
    password: SecretStr | None = Field(
        None, description="Its password, or API secret. Prefer HEADRACE_SCHEMA_REGISTRY_PASSWORD_FILE."
    )
    password_file: Path | None = Field(None, description="The file that holds the password, such as a mounted Secret.")
    tls_ca_file: Path | None = Field(
        None, description="PEM file of the authority that signed the registry's certificate, if it is one of your own."
    )
    timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="A request that the registry has not answered after this many seconds has failed."
    )
    patience_seconds: float = Field(
        30.0,
        ge=0,
        le=600,
        description="How long a partition waits for a schema that the registry does not have, since it may be behind; "
        "then the record becomes a dead letter. It waits once in ten times as long, so that wrong records do not stop "
        "a partition.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.url is None:
            return self
        if "@" in self.url:
            raise ValueError(
                "HEADRACE_SCHEMA_REGISTRY_URL holds no user and no password; set HEADRACE_SCHEMA_REGISTRY_USERNAME and "
                "HEADRACE_SCHEMA_REGISTRY_PASSWORD_FILE"
            )
        try:
            parts = urlsplit(self.url)
            is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_right = False
        if not is_right:
            raise ValueError("HEADRACE_SCHEMA_REGISTRY_URL must be http://host:port or https://host:port")
        return self

    def read_password(self) -> str | None:
        """Return the password, from the file if one is named. Raises: ConfigurationError (file unreadable)."""
        return read_secret("HEADRACE_SCHEMA_REGISTRY_PASSWORD_FILE", self.password_file, self.password)
