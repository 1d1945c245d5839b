"""The server: sessions that run one command after the other, locks, and everything that can happen to a session."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg

from headrace import sql
from tests.simulation.clock import BEGIN_UNIX_SECONDS
from tests.simulation.loop import Loop, Process
from tests.simulation.store.statements import READS, STATEMENTS
from tests.simulation.store.tables import Tables
from tests.simulation.store.transaction import Place, Transaction

LOCK_SECONDS = 10.0
_SET_IDLE = re.compile(r"set local idle_in_transaction_session_timeout = (\d+)")


class Command:
    """One message of a client, and where its answer goes."""

    def __init__(self, kind: str, query: str, args: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        self.kind = kind
        self.query = query
        self.args = args
        self.answer = answer
        self.work: Generator[Place, None, Any] | None = None
        self.waits_for: Place | None = None
        self.transaction: Transaction | None = None
        self.has_ended = False


class Session:
    """One client's session, as the server knows it."""

    def __init__(self, process: Process | None, idle_seconds: float) -> None:
        self.process = process
        self.default_idle_seconds = self.idle_seconds = idle_seconds
        self.queue: deque[Command] = deque()
        self.current: Command | None = None
        self.transaction: Transaction | None = None
        self.is_gone = False
        self.is_unheard = False
        """True if its client has lost it in a COMMIT that takes effect later."""
        self.commands = 0
        self.arrived_at = 0.0
        """When the last message of the client arrives: none overtakes another on its way."""


class Server:
    """Postgres. `latency` draws the seconds that a message takes."""

    def __init__(self, loop: Loop, latency: Callable[[], float]) -> None:
        self._loop = loop
        self.latency = latency
        self.tables = Tables()
        self.sessions: dict[Session, Callable[[Exception], None]] = {}
        """Each with what tells its client that the connection is lost, in the order in which they began."""
        self.is_down = False
        self.clock_offset = 0.0
        self._holders: dict[Place, Transaction] = {}
        self._waiting: dict[Place, deque[tuple[Session, Command]]] = {}
        self._ids = 0
        self.on_commit_command: Callable[[Session], float | None] = lambda session: None
        """Says what happens to a COMMIT: None, nothing; -1, it is lost; else it takes effect so much later, unheard."""
        self.before_commit: Callable[[Transaction], None] = lambda transaction: None

    def now(self) -> float:
        """Return the server's time in Unix seconds."""
        return BEGIN_UNIX_SECONDS + self._loop.time() + self.clock_offset

    def new_id(self) -> UUID:
        """Return Postgres' gen_random_uuid(): the same ones in each run of a seed."""
        self._ids += 1
        return UUID(int=self._ids)

    # Sessions

    def connect(self, process: Process | None, idle_seconds: float, tell: Callable[[Exception], None]) -> Session:
        """Begin a session."""
        session = Session(process, idle_seconds)
        self.sessions[session] = tell
        return session

    def send(self, session: Session, receive: Callable[[Session, Command], None], command: Command) -> None:
        """Let a message of the client arrive after a while, behind those that it has sent before."""
        now = self._loop.time()
        session.arrived_at = max(now + self.latency(), session.arrived_at + 1e-6)
        self._loop.outside(session.arrived_at - now, receive, session, command)

    def receive(self, session: Session, command: Command) -> None:
        """Take a command in; it runs once those before it have ended."""
        if not session.is_gone:
            session.commands += 1
            session.queue.append(command)
            self._pump(session)

    def cancel(self, session: Session, command: Command) -> None:
        """Cancel a command that its client does not wait for any more, if it has not ended."""
        if not command.has_ended and session.current is command and not session.is_gone:
            self._fail(session, command, asyncpg.QueryCanceledError("canceling statement due to user request"))

    def end(self, session: Session, error: Exception | None = None) -> None:
        """End a session, as the server does when it finds that the client is gone; roll back what is open."""
        if session.is_gone:
            return
        session.is_gone = True
        tell = self.sessions.pop(session)
        command, session.current = session.current, None
        if command is not None:
            command.has_ended = True
            self._stop_waiting(session, command)
        if session.transaction is not None:
            self._release(session.transaction)
        if command is not None and command.transaction is not None:
            self._release(command.transaction)
        lost = error or asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        self._loop.outside(self.latency(), tell, lost)

    def restart(self) -> None:
        """End every session."""
        for session in list(self.sessions):
            self.end(session)

    def restore(self, tables: Tables) -> None:
        """Go back to an earlier copy."""
        self.restart()
        self.tables = tables.copy()

    # Commands

    def _pump(self, session: Session) -> None:
        if session.current is not None or not session.queue or session.is_gone:
            return
        command = session.current = session.queue.popleft()
        try:
            is_commit = command.kind == "commit" or command.query == sql.batch.COMMIT
            if is_commit and (delay := self.on_commit_command(session)) is not None:
                self._loop.outside(max(0.0, delay), self._commit_unheard, session, command, delay >= 0)
            elif command.kind == "run":
                self._begin_statement(session, command)
            else:
                self._answer(session, command, getattr(self, f"_{command.kind}")(session))
        except asyncpg.PostgresError as error:
            self._fail(session, command, error)

    def _begin_statement(self, session: Session, command: Command) -> None:
        if session.transaction is not None and session.transaction.is_aborted:
            raise asyncpg.InFailedSQLTransactionError("current transaction is aborted")
        read = READS.get(command.query)
        if read is not None:
            rows = list(read(session.transaction or Transaction(self, session), *command.args))
            self._answer(session, command, (f"SELECT {len(rows)}", rows))
            return
        if (found := _SET_IDLE.fullmatch(command.query)) is not None:
            session.idle_seconds = int(found[1]) / 1_000
            self._answer(session, command, ("SET", []))
            return
        statement = STATEMENTS.get(command.query)
        if statement is None:
            raise NotImplementedError(f"the store has no model of this query: {command.query.strip()}")
        command.transaction = session.transaction or Transaction(self, session)
        command.work = statement(command.transaction, *command.args)
        self._go_on(session, command)

    def _go_on(self, session: Session, command: Command) -> None:
        """Run the statement until it ends, or has to wait for a lock."""
        assert command.work is not None and command.transaction is not None
        if command.has_ended:
            return
        command.waits_for = None
        try:
            while True:
                place = next(command.work)
                holder = self._holders.setdefault(place, command.transaction)
                if holder is command.transaction:
                    holder.locked.add(place)
                    continue
                self._wait(session, command, place)
                return
        except StopIteration as done:
            if session.transaction is None:
                self._end_transaction(command.transaction)
            self._answer(session, command, done.value)
        except asyncpg.PostgresError as error:
            self._fail(session, command, error)

    def _wait(self, session: Session, command: Command, place: Place) -> None:
        command.waits_for = place
        assert command.work is not None
        command.work = _again(place, command.work)
        holder: Transaction | None = self._holders.get(place)
        while holder is not None:
            if holder is command.transaction:
                raise asyncpg.DeadlockDetectedError("deadlock detected")
            waiting = holder.session.current
            holder = self._holders.get(waiting.waits_for) if waiting is not None and waiting.waits_for else None
        self._waiting.setdefault(place, deque()).append((session, command))
        is_group = command.query == sql.batch.COMMIT
        seconds = int(command.args[-1]) / 1_000 if is_group else LOCK_SECONDS
        self._loop.outside(seconds, self._lock_timeout, session, command, place)

    def _lock_timeout(self, session: Session, command: Command, place: Place) -> None:
        if command.waits_for == place and not command.has_ended:
            self._fail(session, command, asyncpg.LockNotAvailableError("canceling statement due to lock timeout"))

    def _stop_waiting(self, session: Session, command: Command) -> None:
        if command.waits_for is not None and (session, command) in self._waiting.get(command.waits_for, ()):
            self._waiting[command.waits_for].remove((session, command))

    def _answer(self, session: Session, command: Command, result: Any) -> None:
        self._end_command(session, command)
        self._loop.outside(self.latency(), _set_result, command.answer, result)

    def _fail(self, session: Session, command: Command, error: Exception) -> None:
        self._stop_waiting(session, command)
        if session.transaction is not None:
            session.transaction.is_aborted = True
        elif command.transaction is not None:
            self._release(command.transaction)
        self._end_command(session, command)
        self._loop.outside(self.latency(), _set_exception, command.answer, error)

    def _end_command(self, session: Session, command: Command) -> None:
        command.has_ended = True
        session.current = None
        if session.transaction is not None and not session.queue:
            self._loop.outside(session.idle_seconds, self._end_idle, session, session.commands)
        if session.queue:
            self._loop.outside(0.0, self._pump, session)

    def _end_idle(self, session: Session, commands: int) -> None:
        """End a session that has been silent within its transaction."""
        if session.transaction is not None and session.commands == commands:
            self.end(session, asyncpg.IdleInTransactionSessionTimeoutError("terminating connection due to idle"))

    # Transactions

    def _begin(self, session: Session) -> str:
        session.transaction = Transaction(self, session)
        return "BEGIN"

    def _commit(self, session: Session) -> str:
        transaction, session.transaction = session.transaction, None
        session.idle_seconds = session.default_idle_seconds
        if transaction is None:
            return "COMMIT"
        if transaction.is_aborted:
            self._release(transaction)
            return "ROLLBACK"
        self._end_transaction(transaction)
        return "COMMIT"

    def _commit_unheard(self, session: Session, command: Command, takes_effect: bool) -> None:
        """Commit, or not, for a client that has gone meanwhile."""
        if session.is_gone:
            return
        session.is_unheard = True
        if takes_effect and command.kind == "run":
            with suppress(asyncpg.PostgresError):
                self._begin_statement(session, command)  # if it has to wait for a lock, it comes too late
        elif takes_effect:
            self._commit(session)
        self.end(session)

    def _rollback(self, session: Session) -> str:
        transaction, session.transaction = session.transaction, None
        session.idle_seconds = session.default_idle_seconds
        if transaction is not None:
            self._release(transaction)
        return "ROLLBACK"

    def _savepoint(self, session: Session) -> str:
        transaction = session.transaction
        if transaction is None:
            raise asyncpg.NoActiveSQLTransactionError("SAVEPOINT can only be used in transaction blocks")
        if transaction.is_aborted:
            raise asyncpg.InFailedSQLTransactionError("current transaction is aborted")
        transaction.savepoint()
        return "SAVEPOINT"

    def _release_savepoint(self, session: Session) -> str:
        if session.transaction is None or session.transaction.is_aborted:
            raise asyncpg.InFailedSQLTransactionError("current transaction is aborted")
        session.transaction.release_savepoint()
        return "RELEASE"

    def _rollback_to(self, session: Session) -> str:
        if session.transaction is None:
            raise asyncpg.NoActiveSQLTransactionError("ROLLBACK TO can only be used in transaction blocks")
        session.transaction.rollback_to_savepoint()
        return "ROLLBACK"

    def _end_transaction(self, transaction: Transaction) -> None:
        """Commit: what was written becomes visible, all at once."""
        if transaction.written:
            self.before_commit(transaction)
        for (table, key), row in transaction.written.items():
            self.tables.put(table, key, row)
        self._release(transaction)

    def _release(self, transaction: Transaction) -> None:
        if not transaction.locked:
            return
        locked, transaction.locked = transaction.locked, set()
        for place in sorted(locked, key=repr):
            if self._holders.get(place) is transaction:
                del self._holders[place]
            for session, command in self._waiting.pop(place, ()):
                self._loop.outside(0.0, self._go_on, session, command)


def _again(place: Place, work: Generator[Place, None, Any]) -> Generator[Place, None, Any]:
    """Ask for the same place once more, then go on."""
    yield place
    return (yield from work)


def _set_result(answer: asyncio.Future[Any], result: Any) -> None:
    if not answer.done():
        answer.set_result(result)


def _set_exception(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
