"""The pytest plugin: `pip install headrace` is enough.

| fixture | gives |
| --- | --- |
| `handlers` | the service's handlers without any server: `given`, `when`, `run`, `move`, `state` |
| `service` | the running application in this process: `http`, `publish`, `quiet`, `move`, `state`, `published` |
| `build` | valid events from their types: `build(WalletCredited, customer="ada")` |
| `headrace_app` | the application that the option `headrace_app` names; or a fixture of this name returns it |
| `headrace_database` | the address of a fresh database with the tables of Headrace and of the team |
| `headrace_schema` | None; a fixture of this name (scope `session`) returns the team's own tables |

While pytest runs, HEADRACE_LOG is `memory` unless it is set, and every platform that starts on it gets a fresh database
on one PostgreSQL, which starts when it is first needed: so FastAPI's `TestClient(app)` works as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from headrace.errors import ConfigurationError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from headrace.testing.blocking import BlockingService
    from headrace.testing.factories import Build
    from headrace.testing.handlers import Handlers
    from headrace.testing.postgres import PostgresForTests, Schema

DEFAULTS = {"HEADRACE_LOG": "memory", "HEADRACE_MANAGEMENT_PORT": "0", "HEADRACE_PARTITIONS": "2"}
POSTGRES = pytest.StashKey["LazyPostgres"]()
SET = pytest.StashKey[list[str]]()


class LazyPostgres:
    """The run's PostgreSQL, imported and started when it is first asked for."""

    def __init__(self) -> None:
        self.schema: Schema = None
        self._server: PostgresForTests | None = None

    @property
    def server(self) -> PostgresForTests:
        """The server."""
        if self._server is None:
            from headrace.testing.postgres import PostgresForTests

            self._server = PostgresForTests(self.schema)
        return self._server

    def stop(self) -> None:
        """End the server, if it has started."""
        if self._server is not None:
            self._server.stop()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("headrace_app", "the application under test, MODULE:APP, such as shop.service:app", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Set what a test run needs, before any module of the team is imported."""
    config.stash[SET] = [name for name in DEFAULTS if name not in os.environ]
    for name in config.stash[SET]:
        os.environ[name] = DEFAULTS[name]
    lazy = config.stash[POSTGRES] = LazyPostgres()
    from headrace.database import scratch

    async def lend() -> Any:
        return await lazy.server.lend()

    scratch.lender = lend


def pytest_unconfigure(config: pytest.Config) -> None:
    for name in config.stash.get(SET, []):
        os.environ.pop(name, None)
    if (lazy := config.stash.get(POSTGRES, None)) is not None:
        lazy.stop()


@pytest.fixture(scope="session")
def headrace_schema() -> Schema:
    """The team's own tables: SQL, or a function that makes them in the database whose address it is given."""
    return None


@pytest.fixture(scope="session", autouse=True)
def _headrace_schema_is_known(request: pytest.FixtureRequest, headrace_schema: Schema) -> None:
    request.config.stash[POSTGRES].schema = headrace_schema


@pytest.fixture
def headrace_app(request: pytest.FixtureRequest) -> FastAPI:
    """The application under test."""
    from headrace.loading import load_app

    target = str(request.config.getini("headrace_app"))
    if not target:
        raise ConfigurationError(
            'say which application is tested: headrace_app = "shop.service:app" in [tool.pytest.ini_options], or a '
            "fixture `headrace_app` that returns it."
        )
    return load_app(target)


@pytest.fixture
def headrace_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a fresh database of this test's own."""
    with request.config.stash[POSTGRES].server.database() as address:
        yield address


@pytest.fixture
def handlers(request: pytest.FixtureRequest, headrace_app: FastAPI) -> Iterator[Handlers]:
    """The service's handlers without any server; a database only if a handler takes a Transaction."""
    from headrace.testing.handlers import Handlers

    with Handlers(headrace_app, database=lambda: request.getfixturevalue("headrace_database")) as made:
        yield made


@pytest.fixture
def service(headrace_app: FastAPI) -> Iterator[BlockingService]:
    """The running application."""
    from headrace.testing.blocking import running_in_thread

    with running_in_thread(headrace_app) as made:
        yield made


@pytest.fixture
def build(request: pytest.FixtureRequest) -> Build:
    """What builds valid events from their types, the same ones in each run of a test."""
    from headrace.testing.factories import Build

    return Build(request.node.nodeid)
