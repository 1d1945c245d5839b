"""A real PostgreSQL for tests: the product's own embedded server in a temporary folder, with TCP and a password.

    server = PostgresServer()
    await server.start()
    server.url                                # "postgresql://headrace:...@127.0.0.1:41234/headrace"
    async with server.database() as url: ...  # a fresh database with the schema headrace, gone afterwards
    async with server.database(migrated=False) as url: ...
    await server.kill(); await server.start() # -9, then the same port and data
    await server.stop()                       # the data go, too

Databases belong to an ordinary user in an odd time zone, as on a server that others run; only `url` is a superuser's.
`HEADRACE_TEST_POSTGRES=postgresql://...` names a running one instead, whose user may create databases; a test that
needs to stop it makes its own `PostgresServer()`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psycopg

from headrace.database.embedded import EmbeddedPostgres, _find_binaries
from headrace.database.migrate import migrate
from headrace.database.new_cluster import USER
from headrace.database.server_process import pid_file
from headrace.ledger.partitions import tend
from headrace.settings import EngineSettings
from tests.support.ports import free_ports
from tests.support.waiting import until

PASSWORD = "mill:wheel/%"  # of a server that lives for a test run; it needs quoting in an address
_QUOTED_PASSWORD = "mill%3Awheel%2F%25"
_TENANT = "tenant"
GUEST = "guest"  # a role that a tenant may set, and that has no rights of its own
_TIMEZONE = "America/St_Johns"  # half an hour off, so that a time that loses its zone shows


class PostgresServer:
    """One PostgreSQL server, or the running one that `external` names (then start, stop and kill do nothing)."""

    def __init__(
        self,
        external: str | None = None,
        *,
        is_durable: bool = True,
        parent: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """One that is not durable writes less, and is not to be killed. `parent` is where it keeps its folder.

        `settings` are PostgreSQL's own, in the place of the embedded one's.
        """
        self._settings = settings
        self._external = external
        self._is_durable = is_durable
        self._parent = parent
        self._is_standby = False
        self._folder: Path | None = None
        self._server: EmbeddedPostgres | None = None
        self._port = free_ports(1)[0]
        self._template: str | None = None
        self._session: psycopg.Connection | None = None

    @property
    def url(self) -> str:
        """The address of the server's first database, over TCP and with the password."""
        return self._external or f"postgresql://{USER}:{_QUOTED_PASSWORD}@127.0.0.1:{self._port}/{USER}"

    @property
    def is_external(self) -> bool:
        """True if the server is not ours to stop."""
        return self._external is not None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._server.pid if self._server is not None else None

    async def start(self) -> None:
        """Return when the server answers: on a new port the first time, later on the same port and data."""
        if self._external:
            return
        is_new = self._folder is None
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-", dir=self._parent))
        kind = _Standby if self._is_standby else EmbeddedPostgres
        self._server = kind(self._folder, tcp_port=self._port, is_durable=self._is_durable, settings=self._settings)
        socket_url = await self._server.start()
        if is_new:
            connection = await asyncpg.connect(socket_url)
            await connection.execute("set scram_iterations = 1")  # a login costs the processor little
            await connection.execute(f"alter role {USER} password '{PASSWORD}'")
            await connection.execute(f"create role {_TENANT} login password '{PASSWORD}'")
            await connection.execute(f"alter role {_TENANT} set timezone = '{_TIMEZONE}'")
            await connection.execute(f"create role {GUEST}; grant {GUEST} to {_TENANT}")
            await connection.execute(f"grant set on parameter deadlock_timeout to {_TENANT}")  # tests wait for it
            await connection.close()

    async def stop(self) -> None:
        """End the server and throw its data away."""
        if self._external:
            await self._drop_template()
            self._hang_up()
            return
        await self.shut_down()
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = self._template = None

    async def shut_down(self) -> None:
        """End the server politely and keep its data for the next start."""
        self._hang_up()
        if self._server is not None:
            await self._server.stop()
            self._server = None

    async def kill(self) -> None:
        """End the server with -9 and keep its data for the next start."""
        if self._server is not None and self._server.pid is not None:
            os.kill(self._server.pid, signal.SIGKILL)
            await until(lambda: self.pid is None, "PostgreSQL is dead")
        await self.shut_down()

    async def follower(self) -> PostgresServer:
        """Return a server that is a standby of this one as soon as it is started."""
        assert self._folder is not None
        other = PostgresServer(is_durable=self._is_durable)
        other._is_standby = True
        other._folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
        source = ["-h", str(self._folder / "socket"), "-p", str(self._port), "-U", USER]
        copying = ["-D", str(other._folder / "cluster"), *source]
        process = await asyncio.create_subprocess_exec(
            _find_binaries() / "pg_basebackup", *copying, "--checkpoint=fast", "--write-recovery-conf", "--no-sync"
        )
        assert await process.wait() == 0
        return other

    async def promote(self) -> None:
        """Let a standby take writes. Returns when it does."""
        await self.execute("select pg_promote()")
        self._is_standby = False

    async def copy_data(self, folder: Path) -> None:
        """Copy the data of a server that is down into a folder that does not exist yet."""
        await self._copy(self._cluster, folder)

    async def put_back(self, folder: Path) -> None:
        """Replace the data of a server that is down by what `copy_data` has kept."""
        await asyncio.to_thread(shutil.rmtree, self._cluster)
        await self._copy(folder, self._cluster)

    @property
    def _cluster(self) -> Path:
        assert self._folder is not None and self._server is None, "the server is down, and has run"
        return self._folder / "cluster"

    async def _copy(self, source: Path, target: Path) -> None:
        process = await asyncio.create_subprocess_exec("cp", "-Rp", source, target)
        assert await process.wait() == 0

    @property
    def log(self) -> Path:
        """What the server has written about itself; a new file may begin with a start."""
        assert self._folder is not None
        return self._folder / "postgres.log"

    def pause(self) -> None:
        """Stop the server's first process: whoever connects waits; open sessions go on."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGCONT)

    def of_superuser(self, url: str) -> str:
        """Return the address of the same database for the user who may do everything."""
        return urlunsplit(urlsplit(self.url)._replace(path=urlsplit(url).path))

    def moved(self, url: str) -> str:
        """Return the address of a database of the server that this one follows, on this server."""
        user, _, _ = urlsplit(url).netloc.rpartition("@")
        return urlunsplit(urlsplit(url)._replace(netloc=f"{user}@127.0.0.1:{self._port}"))

    @asynccontextmanager
    async def database(self, *, migrated: bool = True) -> AsyncIterator[str]:
        """Yield the address of a fresh database that is dropped afterwards, whoever is still connected."""
        name = f"t_{secrets.token_hex(6)}"
        template = await self._ensure_template() if migrated else "template1"
        await self._create(name, template)
        try:
            yield self._url_of(name)
        finally:
            await self.execute(f"drop database if exists {name} with (force)")

    async def _ensure_template(self) -> str:
        if self._template is None:
            name = f"t_{secrets.token_hex(6)}_template"
            await self._create(name, "template1")
            await migrate(self._url_of(name), "pre")
            async with asyncpg.create_pool(self._url_of(name), min_size=1, max_size=1) as pool:
                await tend(pool.acquire, EngineSettings(), datetime.now(UTC).date())
            self._template = name
        return self._template

    async def _create(self, name: str, template: str) -> None:
        ours = "" if self._external else f" owner {_TENANT} strategy file_copy"  # several times faster in memory
        await self.execute(f"create database {name} template {template}{ours}")

    def _url_of(self, name: str) -> str:
        address = urlsplit(self.url)._replace(path=f"/{name}")
        if not self._external:
            address = address._replace(netloc=f"{_TENANT}:{_QUOTED_PASSWORD}@127.0.0.1:{self._port}")
        return urlunsplit(address)

    async def _drop_template(self) -> None:
        if self._template is not None:
            await self.execute(f"drop database if exists {self._template} with (force)")
            self._template = None

    async def execute(self, sql: str) -> None:
        """Run a statement as the superuser."""
        await asyncio.to_thread(self._execute_now, sql)

    def _execute_now(self, sql: str) -> None:
        """Run the statement in the one session that makes and drops databases, whichever event loop asks for it."""
        if self._session is None:
            self._session = psycopg.connect(self.url, autocommit=True)
        try:
            self._session.execute(sql.encode())
        except psycopg.OperationalError:  # the server has ended the session meanwhile
            self._session = psycopg.connect(self.url, autocommit=True)
            self._session.execute(sql.encode())

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


class _Standby(EmbeddedPostgres):
    """A server that takes no writes yet, which its status line says."""

    def _is_ready(self) -> bool:
        lines = pid_file(self._cluster)
        return super()._is_ready() or (lines[:1] == [str(self.pid)] and lines[7:8] == ["standby "])
