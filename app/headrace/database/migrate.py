"""The schema `headrace`, brought up to date by files: `migrations/<phase>/NNNN_name.sql`, each applied once, in order.

`pre` files run before new code starts and leave old code working; `post` files run when the old code is gone. What was
applied is in `headrace.migration`. Every file is one transaction that first takes an advisory lock, so migrators that
start together take turns, and a killed one leaves nothing half done. Where nothing is missing no lock is asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Literal, NamedTuple

import asyncpg

from headrace.database.failures import classify
from headrace.database.pool import Connection, connect
from headrace.errors import ConfigurationError, StateUnavailableError

Phase = Literal["pre", "post"]
PHASES: tuple[Phase, ...] = ("pre", "post")

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_ADVISORY_LOCK = int.from_bytes(b"migrate")  # any number that nobody else in the database takes; see embedded_session
_LOCK_TIMEOUT = "5s"  # queued behind a long reader, a migration stops everybody who comes after it: let them pass
_LOCK_ATTEMPTS = 60
_PAUSE_SECONDS = 1.0
# Read from the catalogue: to_regclass() may go by what this session knew before it waited for the lock
# (test_migrators_that_start_together_apply_each_file_once).
_HAS_TABLE = """
select exists (
    select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'headrace' and c.relname = 'migration'
)
"""


class Migration(NamedTuple):
    """One file of SQL."""

    phase: Phase
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, to notice a file that was changed after it was applied."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.phase}/{self.number:04}_{self.name}"


async def migrate(
    target: Connection | str,
    phase: Phase = "pre",
    report: Callable[[str], None] = lambda line: None,
    *,
    known: Sequence[Migration] | None = None,
) -> list[str]:
    """Apply what is missing of the phase and return the files' names; `report` gets a line for each step.

    `target` is an address or a connection that is in no transaction; `known` are the package's own files where None.
    Safe to run again and by several at once.
    Raises: ConfigurationError (the database is newer than this code, a file was changed, the user may not create),
    StateUnavailableError (locks are not to be had, connection lost: run it again).
    """
    if isinstance(target, str):
        connection = await connect(target)
        try:
            return await migrate(connection, phase, report, known=known)
        finally:
            await connection.close(timeout=5)
    files = load_migrations() if known is None else known
    applied = []
    while (step := await _take_turn(target, phase, files, report)) is not None:
        report(f"applied {step}")
        applied.append(str(step))
    return applied


async def schema_version(connection: Connection) -> dict[Phase, int]:
    """Return the number of the last applied file per phase; 0 where there is none."""
    versions: dict[Phase, int] = dict.fromkeys(PHASES, 0)
    if await connection.fetchval("select to_regclass('headrace.migration') is not null"):
        for row in await connection.fetch("select phase, max(number) as number from headrace.migration group by phase"):
            versions[row["phase"]] = row["number"]
    return versions


def expected_version(phase: Phase) -> int:
    """Return the number of the last file of the phase that this code brings."""
    return max((migration.number for migration in load_migrations() if migration.phase == phase), default=0)


def load_migrations() -> list[Migration]:
    """Return the package's files, in the order in which they are applied."""
    found: list[Migration] = []
    for phase in PHASES:
        folder = resources.files("headrace.database") / "migrations" / phase
        files = {file.name: file for file in folder.iterdir()} if folder.is_dir() else {}
        found += [
            Migration(phase, int(match[1]), match[2], files[name].read_text(encoding="utf-8"))
            for name in sorted(files)
            if (match := _FILE_NAME.fullmatch(name))
        ]
    return found


async def _take_turn(
    connection: Connection, phase: Phase, known: Sequence[Migration], report: Callable[[str], None]
) -> Migration | None:
    """Apply the next file and return it; None where nothing is left to do."""
    for attempt in range(1, _LOCK_ATTEMPTS + 1):
        try:
            if await _next_step(connection, phase, known) is None:
                return None
            async with connection.transaction():
                await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
                await connection.execute("select pg_advisory_xact_lock($1)", _ADVISORY_LOCK)
                return await _apply_next(connection, phase, known)
        except asyncpg.LockNotAvailableError as error:
            if attempt == _LOCK_ATTEMPTS:
                raise StateUnavailableError(
                    f"a lock for the migration was not to be had in {_LOCK_ATTEMPTS} attempts of {_LOCK_TIMEOUT}; "
                    "end the long transaction that pg_stat_activity shows, then run headrace migrate again."
                ) from error
            report(f"waiting for a lock (attempt {attempt} of {_LOCK_ATTEMPTS})")
            await asyncio.sleep(_PAUSE_SECONDS)
        except asyncpg.InsufficientPrivilegeError as error:
            raise ConfigurationError(
                f"HEADRACE_DATABASE: the user may not migrate ({error}); "
                "grant create on database, or run headrace migrate as the owner of the schema headrace."
            ) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            failure = classify(error)
            if isinstance(failure, StateUnavailableError):
                raise failure from error
            raise
    raise AssertionError("unreachable")


async def _apply_next(connection: Connection, phase: Phase, known: Sequence[Migration]) -> Migration | None:
    step = await _next_step(connection, phase, known)
    if step is not None:
        await _create_table(connection)
        await connection.execute(step.sql)
        await connection.execute(
            "insert into headrace.migration (phase, number, name, checksum) values ($1, $2, $3, $4)",
            *(step.phase, step.number, step.name, step.checksum),
        )
    return step


async def _next_step(connection: Connection, phase: Phase, known: Sequence[Migration]) -> Migration | None:
    """Return the first file of the phase that the database lacks. Raises: ConfigurationError."""
    rows = []
    if await connection.fetchval(_HAS_TABLE):
        rows = await connection.fetch("select phase, number, name, checksum from headrace.migration")
    applied = {(row["phase"], row["number"]): row for row in rows}
    _check(known, applied)
    missing = [migration for migration in known if (migration.phase, migration.number) not in applied]
    if phase == "post" and any(migration.phase == "pre" for migration in missing):
        raise ConfigurationError("the `pre` migrations come first: run headrace migrate --phase pre.")
    return next((migration for migration in missing if migration.phase == phase), None)


async def _create_table(connection: Connection) -> None:
    # Asked first, since `if not exists` needs the right to create even where there is nothing to do.
    if not await connection.fetchval("select exists (select from pg_namespace where nspname = 'headrace')"):
        await connection.execute("create schema headrace")
    if not await connection.fetchval(_HAS_TABLE):
        await connection.execute(
            """
            create table headrace.migration (
                phase       text not null,
                number      integer not null,
                name        text not null,
                checksum    text not null,
                applied_at  timestamptz not null default now(),
                primary key (phase, number)
            )
            """
        )


def _check(known: Sequence[Migration], applied: dict[tuple[Phase, int], asyncpg.Record]) -> None:
    """Raise where the database holds what this code does not know, or knows otherwise."""
    files = {(migration.phase, migration.number): migration for migration in known}
    for (phase, number), row in sorted(applied.items()):
        file = files.get((phase, number))
        if file is None:
            raise ConfigurationError(
                f"the database's schema is newer than this version of Headrace "
                f"(it has {phase}/{number:04}_{row['name']}, which this version does not know): run the newer image."
            )
        if file.checksum != row["checksum"]:
            raise ConfigurationError(
                f"the migration {file} was changed after it was applied to this database: "
                "put the released file back and bring the change as a new one."
            )
