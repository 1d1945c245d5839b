"""The database of the tests has the tables that Alembic makes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config


def migrate(address: str) -> None:
    """Bring a database to the newest revision."""
    config = Config(Path(__file__).parents[1] / "alembic.ini")
    config.set_main_option("sqlalchemy.url", address.replace("%", "%%"))
    command.upgrade(config, "head")


@pytest.fixture(scope="session")
def headrace_schema() -> Callable[[str], None]:
    return migrate
