"""`headrace database`: the way of other programs into the embedded database."""

from __future__ import annotations

import typer

from headrace.database.embedded import embedded_folder, running_address
from headrace.errors import ConfigurationError
from headrace.settings import load_settings

database = typer.Typer(help="The embedded database, for psql, Alembic and other programs.", no_args_is_help=True)


@database.callback()
def options() -> None:
    """Keep `url` a verb of its own, although it is the only one."""


@database.command("url")
def url() -> None:
    """Print the address of the embedded database while a platform runs: psql "$(headrace database url)"."""
    settings = load_settings()
    if not settings.is_database_embedded:
        raise ConfigurationError("HEADRACE_DATABASE names a server; use its address.")
    address = running_address(embedded_folder(settings))
    if address is None:
        raise ConfigurationError(
            f"no embedded database runs in HEADRACE_DATA_DIR={settings.data_dir}; start headrace run first."
        )
    typer.echo(address)
