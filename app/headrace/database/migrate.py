"""The schema `headrace`, brought up to date by files: `migrations/<phase>/NNNN_name.sql`, each applied once, in order.

`pre` files run before new code starts and leave old code working; `post` files run when the old code is gone. So a
database with newer `pre` files is fit for old code, and a rollback needs no change of the schema; one with newer `post`
files is not. What was applied is in `headrace.migration`. Every file is one transaction that first takes an advisory
lock, so migrators that start together take turns, and a killed one leaves nothing half done. If nothing is missing, no
lock is asked for. Only the last file's commit waits for the disk, by when those before it are there as well: one that
a crash of the machine took back is applied again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Literal, NamedTuple

import asyncpg

from headrace import sql
from headrace.database.failures import classify
from headrace.database.pool import Connection, connect
from headrace.errors import ConfigurationError, StateUnavailableError
from headrace.fault import Fault

Phase = Literal["pre", "post"]
PHASES: tuple[Phase, ...] = ("pre", "post")

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_ADVISORY_LOCK = int.from_bytes(b"migrate")  # any number that nobody else in the database takes; see embedded_session
_LOCK_TIMEOUT = "5s"  # a migration that waits for a long reader holds up everybody who comes after it
_LOCK_ATTEMPTS = 60
_PAUSE_SECONDS = 1.0
_NAMED = 5

ALIVE_SECONDS = 60.0
"""A process that was seen within this time counts as alive; it beats four times as often."""


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

    `target` is an address or a connection that is in no transaction; `known` are the package's own files unless given.
    Safe to run again and by several at once.
    Raises: ConfigurationError (a `post` file that this code does not know was applied, one is to be applied while older
    code still runs, a file was changed, the user may not create), StateUnavailableError (a lock could not be taken,
    connection lost: run it again).
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


class Schema(NamedTuple):
    """The schema of a database beside the files that this code brings."""

    versions: dict[Phase, int]
    """The number of the last applied file per phase; 0 if there is none."""
    missing: list[Migration]
    """The files that the database lacks, in the order in which they are applied."""
    changed: list[Migration]
    """The files that have another text than when they were applied."""
    unknown: list[str]
    """What a newer release has applied, such as `post/0009_outbox`."""

    def lacks(self, phase: Phase) -> bool:
        """True if a file of the phase is missing."""
        return any(migration.phase == phase for migration in self.missing)

    @property
    def newer(self) -> Fault | None:
        """Set if a newer release has taken something away that this code may need."""
        unfit = [name for name in self.unknown if name.startswith("post/")]
        if not unfit:
            return None
        return Fault(
            "the schema of HEADRACE_DATABASE",
            f"is newer than this version of Headrace (it has {unfit[-1]}, which this version does not know)",
            "run the newer release",
        )

    @property
    def older(self) -> Fault | None:
        """Set if something is missing that this code needs."""
        if not self.lacks("pre"):
            return None
        return Fault(
            "the schema of HEADRACE_DATABASE",
            f"is older than this version of Headrace (it is at pre {self.versions['pre']:04}, "
            f"needed is pre {expected_version('pre'):04})",
            "run headrace migrate",
        )


async def read_schema(connection: Connection, known: Sequence[Migration] | None = None) -> Schema:
    """Return what was applied, compared with the package's own files unless others are given."""
    files = load_migrations() if known is None else known
    rows = (
        await connection.fetch(sql.schema.APPLIED) if await connection.fetchval(sql.schema.HAS_MIGRATION_TABLE) else []
    )
    versions: dict[Phase, int] = dict.fromkeys(PHASES, 0)
    applied: dict[tuple[Phase, int], str] = {}
    for row in rows:
        versions[row["phase"]] = row["number"]
        applied[row["phase"], row["number"]] = row["checksum"]
    numbers = {(file.phase, file.number) for file in files}
    return Schema(
        versions,
        [file for file in files if (file.phase, file.number) not in applied],
        [file for file in files if applied.get((file.phase, file.number), file.checksum) != file.checksum],
        [
            f"{row['phase']}/{row['number']:04}_{row['name']}"
            for row in rows
            if (row["phase"], row["number"]) not in numbers
        ],
    )


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
    """Apply the next file and return it; None if nothing is left to do."""
    for attempt in range(1, _LOCK_ATTEMPTS + 1):
        try:
            if not await _missing(connection, phase, known):
                return None
            async with connection.transaction():
                await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
                await connection.execute("select pg_advisory_xact_lock($1)", _ADVISORY_LOCK)
                return await _apply_next(connection, phase, known)
        except asyncpg.LockNotAvailableError as error:
            if attempt == _LOCK_ATTEMPTS:
                raise StateUnavailableError(
                    f"the migration could not lock its tables in {_LOCK_ATTEMPTS} attempts of {_LOCK_TIMEOUT}; "
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
    missing = await _missing(connection, phase, known)
    if not missing:
        return None
    step = missing[0]
    if len(missing) > 1:
        await connection.execute("set local synchronous_commit = off")
    await _create_table(connection)
    await connection.execute(step.sql)
    await connection.execute(sql.schema.NOTE_APPLIED, step.phase, step.number, step.name, step.checksum)
    return step


async def _missing(connection: Connection, phase: Phase, known: Sequence[Migration]) -> list[Migration]:
    """Return the files of the phase that the database lacks. Raises: ConfigurationError."""
    schema = await read_schema(connection, known)
    if schema.newer is not None:
        raise ConfigurationError(schema.newer.sentence)
    if schema.changed:
        raise ConfigurationError(
            f"the migration {schema.changed[0]} was changed after it was applied to this database: "
            "put the released file back and bring the change as a new one."
        )
    if phase == "post" and schema.lacks("pre"):
        raise ConfigurationError("the `pre` migrations come first: run headrace migrate --phase pre.")
    missing = [migration for migration in schema.missing if migration.phase == phase]
    if missing and phase == "post":
        await _refuse_older_processes(connection, missing[0])
    return missing


async def _refuse_older_processes(connection: Connection, step: Migration) -> None:
    """Raises: ConfigurationError (a process lives whose code may need what the migration takes away)."""
    older = await connection.fetch(sql.process.OLDER, step.number, ALIVE_SECONDS)
    if older:
        names = ", ".join(f"{row['name']} (version {row['version']})" for row in older[:_NAMED])
        more = f" and {len(older) - _NAMED} more" if len(older) > _NAMED else ""
        raise ConfigurationError(
            f"{step} takes away what older code needs, and processes that do not know it were seen in the last minute: "
            f"{names}{more}; replace them, then run headrace migrate --phase post again."
        )


async def _create_table(connection: Connection) -> None:
    # Asked first, since `if not exists` needs the right to create even if there is nothing to do.
    if not await connection.fetchval(sql.schema.HAS_SCHEMA):
        await connection.execute(sql.schema.CREATE_SCHEMA)
    if not await connection.fetchval(sql.schema.HAS_MIGRATION_TABLE):
        await connection.execute(sql.schema.CREATE_MIGRATION_TABLE)
