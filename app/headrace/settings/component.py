"""What the settings of every component share: how they are read, and how a secret comes from a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from headrace.errors import ConfigurationError


def component(prefix: str) -> SettingsConfigDict:
    """Return the configuration of a class whose fields are read from variables with the prefix."""
    return SettingsConfigDict(env_prefix=prefix, frozen=True, extra="ignore", case_sensitive=False, allow_inf_nan=False)


def read_secret(variable: str, file: Path | None, value: SecretStr | None) -> str | None:
    """Return the secret, from the file if one is named. Raises: ConfigurationError (file unreadable, not text)."""
    if file is not None:
        try:
            return file.read_bytes().decode().rstrip("\r\n")
        except OSError as error:
            raise ConfigurationError(f"{variable}={file} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{variable}={file} is no text in UTF-8; write the secret into it.") from error
    return value.get_secret_value() if value is not None else None
