"""Connections to Postgres."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from headrace.settings.component import component, read_secret


class DatabaseSettings(BaseSettings):
    """`HEADRACE_DATABASE_...`: connections to Postgres; the address itself is HEADRACE_DATABASE."""

    model_config = component("HEADRACE_DATABASE_")

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
        10.0, gt=0, le=3_600, description="An attempt to connect fails after this many seconds."
    )
    statement_timeout_seconds: float = Field(
        30.0,
        gt=0,
        le=86_400,
        description="Postgres cancels a statement that takes longer than this many seconds, also a handler's own SQL.",
    )
    idle_in_transaction_seconds: float = Field(
        15.0,
        gt=0,
        le=86_400,
        description="Postgres ends a session that is silent within a transaction for this many seconds, so that the "
        "locks of a frozen process come free. Keep it below HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS.",
    )
    migrate_on_start: bool = Field(
        True,
        description="Whether a start applies the `pre` migrations. Turn it off if `headrace migrate` runs before.",
    )

    def read_password(self) -> str | None:
        """Return the password, from the file if one is named. Raises: ConfigurationError (file unreadable)."""
        return read_secret("HEADRACE_DATABASE_PASSWORD_FILE", self.password_file, self.password)
