"""Connections to Postgres that behave the same whatever the role's, the database's or the server's defaults are.

Only the search path is the role's own: a handler's SQL finds the tables that psql or Alembic make with the same role.
The platform's SQL always names its schema.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import NoReturn, TypeAlias, cast
from urllib.parse import urlsplit

import asyncpg
import asyncpg.pool

from headrace.database.failures import classify
from headrace.database.session import Session
from headrace.errors import ConfigurationError, HeadraceError, StateUnavailableError
from headrace.fault import Fault
from headrace.settings import DatabaseSettings, Settings

OLDEST_SERVER = 14
SCHEMA = "headrace"
"""The schema that everything of the platform is in."""

Connection: TypeAlias = "asyncpg.Connection | asyncpg.pool.PoolConnectionProxy"
Pool: TypeAlias = "asyncpg.Pool"
Row: TypeAlias = "asyncpg.Record"
ConnectionFactory: TypeAlias = "Callable[[], AbstractAsyncContextManager[Connection]]"
"""Lends a connection, as `EngineContext.connection` does."""

_LOCK_TIMEOUT_SECONDS = 10.0
_IDLE_CONNECTION_SECONDS = 300.0
_SERVER = """
select current_setting('server_encoding'), current_setting('lock_timeout')::interval, pg_is_in_recovery(),
       quote_ident(current_user), (current_schemas(true))[1] = 'pg_catalog',
       coalesce(current_setting('transaction_timeout', true), '0')
"""


async def open_pool(settings: Settings, url: str, *, size: int | None = None) -> asyncpg.Pool:
    """Return a pool of at most `size` connections (HEADRACE_DATABASE_POOL_SIZE), after one was tried.

    JSON goes in and comes out as text.
    Raises: ConfigurationError (address, user, password, database, TLS, server too old), StateUnavailableError (the
    server is away or a standby: try again). Neither shows the password.
    """
    options = settings.database_options
    pool = None
    try:
        pool = await asyncpg.create_pool(
            url,
            connection_class=Session,
            reset=_forget,
            min_size=0,  # asyncpg would log a traceback whenever it cannot keep a floor, and all through an outage
            max_size=size or options.pool_size,
            timeout=options.connect_timeout_seconds,
            # Longer than the server's own limit: it ends a call only if the server has gone without a word.
            command_timeout=options.statement_timeout_seconds + 5,
            max_inactive_connection_lifetime=_IDLE_CONNECTION_SECONDS,
            server_settings=session_settings(options),
        )
        async with pool.acquire() as connection:
            await check_server(connection, url)
    except BaseException as error:
        if pool is not None:
            pool.terminate()
        _raise_explained(error, url)
    return pool


async def _forget(connection: asyncpg.Connection) -> None:
    await cast("Session", connection).forget()


async def connect(url: str, *, timeout_seconds: float = 10.0) -> asyncpg.Connection:
    """Return one connection without a statement timeout, for migrations and the doctor. Raises: as open_pool."""
    settings = session_settings(DatabaseSettings()) | {"statement_timeout": "0", "search_path": "public"}
    connection = None
    try:
        connection = await asyncpg.connect(
            url, connection_class=Session, timeout=timeout_seconds, server_settings=settings
        )
        await check_server(connection, url)
    except BaseException as error:
        if connection is not None:
            connection.terminate()
        _raise_explained(error, url)
    return connection


async def open_session(settings: Settings, url: str, *, idle_seconds: float) -> asyncpg.Connection:
    """Return one connection beside the pool, which Postgres ends if it is silent for `idle_seconds`.

    A commit on it is not waited for until it is on disk, so it is for work that may happen twice. Raises: as open_pool.
    """
    own = {"idle_session_timeout": _milliseconds(idle_seconds), "synchronous_commit": "off"}
    options = settings.database_options
    try:
        return await asyncpg.connect(
            url,
            connection_class=Session,
            timeout=options.connect_timeout_seconds,
            command_timeout=options.statement_timeout_seconds + 5,
            server_settings=session_settings(options) | own,
        )
    except Exception as error:
        _raise_explained(error, url)


def session_settings(options: DatabaseSettings) -> dict[str, str]:
    """Return what every session sets for itself; `RESET ALL` goes back to these."""
    return {
        "application_name": "headrace",
        "timezone": "UTC",
        "datestyle": "ISO",
        "statement_timeout": _milliseconds(options.statement_timeout_seconds),
        "lock_timeout": _milliseconds(_LOCK_TIMEOUT_SECONDS),
        "idle_in_transaction_session_timeout": _milliseconds(options.idle_in_transaction_seconds),
        "default_transaction_isolation": "read committed",
        "default_transaction_read_only": "off",
        "idle_session_timeout": "0",
        "synchronous_commit": "on",
        # A dead client's locks are free after 25 s.
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "jit": "off",  # compiling costs more than it saves in a batch's short statements
    }


async def check_server(connection: Connection, url: str) -> None:
    """Return if Headrace can work on this server. Raises: ConfigurationError, StateUnavailableError (standby)."""
    version = connection.get_server_version()
    if version.major < OLDEST_SERVER:
        raise ConfigurationError(
            f"HEADRACE_DATABASE: the server at {_place(url)} is PostgreSQL {version.major}.{version.minor}; "
            f"Headrace needs at least {OLDEST_SERVER}."
        )
    ((encoding, kept, is_standby, role, is_plain, transaction_timeout),) = await connection.fetch(_SERVER)
    if encoding != "UTF8":
        raise ConfigurationError(
            f"HEADRACE_DATABASE: the database at {_place(url)} has the encoding {encoding}; "
            "create another: create database ... encoding 'UTF8' template template0."
        )
    if kept != timedelta(seconds=_LOCK_TIMEOUT_SECONDS):
        raise _unfit_pooler(url, "they are ignored")
    if not is_plain:
        raise ConfigurationError(
            f"HEADRACE_DATABASE: the search_path of {role} at {_place(url)} has schemas before pg_catalog, whose "
            f"functions hide PostgreSQL's own; leave pg_catalog out, as in: alter role {role} set search_path = public."
        )
    if transaction_timeout != "0":
        raise ConfigurationError(
            f"HEADRACE_DATABASE: {role} at {_place(url)} has transaction_timeout = {transaction_timeout}, which ends "
            f"migrations and rewinds in the middle; take it away, as with: alter role {role} reset transaction_timeout."
        )
    if is_standby:
        raise StateUnavailableError(f"HEADRACE_DATABASE: the server at {_place(url)} is a standby and takes no writes.")


async def search_path_fault(url: str) -> Fault | None:
    """Return why tables that psql or Alembic make without a schema would land in the platform's own; None if not.

    PostgreSQL's default search path begins with the schema that has the role's name. Raises: as open_pool.
    """
    connection = None
    try:
        connection = await asyncpg.connect(url, timeout=DatabaseSettings().connect_timeout_seconds)
        first = await connection.fetchval("select current_schema()")
        role = await connection.fetchval("select quote_ident(current_user)")
    except Exception as error:
        _raise_explained(error, url)
    finally:
        if connection is not None:
            connection.terminate()
    if first != SCHEMA:
        return None
    return Fault(
        f"the role {role}",
        f"makes its tables in the platform's schema {SCHEMA}, unless a statement names another one",
        f"connect as a role with another name, or run: alter role {role} set search_path = public",
    )


async def postgres_version(connection: Connection) -> str:
    """Return the server's version as it names it, such as `18.4`."""
    return str(await connection.fetchval("select current_setting('server_version')")).split(" ", 1)[0]


def _raise_explained(error: BaseException, url: str) -> NoReturn:
    """Raise the error as a sentence about HEADRACE_DATABASE, or unchanged if it says nothing about the address."""
    if isinstance(error, HeadraceError) or not isinstance(error, Exception):
        raise error
    if isinstance(error, ValueError | OverflowError) and not isinstance(error, asyncpg.PostgresError):
        # Without the cause, since asyncpg quotes the address that it cannot read.
        raise ConfigurationError(f"HEADRACE_DATABASE is not an address of Postgres: {_reason(error, url)}.") from None
    if isinstance(error, asyncpg.ProtocolViolationError):
        raise _unfit_pooler(url, _reason(error, url)) from error
    is_file_missing = isinstance(error, FileNotFoundError | PermissionError) and "ssl" in urlsplit(url).query
    if isinstance(error, _WRONG_SETTING) or is_file_missing or "SSL upgrade" in str(error):
        raise ConfigurationError(
            f"HEADRACE_DATABASE: {_place(url)} refuses the connection: {_reason(error, url)}; {_advice(error)}."
        ) from error
    failure = classify(error)
    if isinstance(failure, StateUnavailableError):
        raise StateUnavailableError(
            f"HEADRACE_DATABASE: {_place(url)} cannot be reached: {_reason(error, url)}."
        ) from error
    raise error


_WRONG_SETTING = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InterfaceError,  # an authentication method that asyncpg does not know
    ssl.SSLError,
)


def _unfit_pooler(url: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"HEADRACE_DATABASE: {_place(url)} does not take session settings ({reason}); "
        "name the server itself or a pooler in session mode."
    )


def _advice(error: Exception) -> str:
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return "create the database, or correct its name"
    if isinstance(error, ssl.SSLError | OSError) or "SSL" in str(error):
        return "set sslmode and sslrootcert in the address as the server asks"
    return "check the user and the password (HEADRACE_DATABASE_PASSWORD, HEADRACE_DATABASE_PASSWORD_FILE)"


def _reason(error: Exception, url: str) -> str:
    text = str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__
    if isinstance(error, TimeoutError):
        text = "no answer in time"
    try:
        secrets = {url, urlsplit(url).password or url}
    except ValueError:
        secrets = {url}
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _place(url: str) -> str:
    """host:port/database, never the password."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2] or 'the local socket'}{parts.path}"


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1_000)))
