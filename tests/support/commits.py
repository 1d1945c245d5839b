"""Tells which messages to Postgres commit something, and which answers say that it is done.

    commits = Commits()                # of one connection, which is given everything that its client sends
    commits.is_commit(data)            # COMMIT, or the statement that commits several small batches
    is_done(answer)

A statement is known by the name that asyncpg has given it when it was prepared. Source: PostgreSQL documentation,
"Message Formats".
"""

from __future__ import annotations

from headrace import sql

COMMIT = b"COMMIT;\x00"
"""asyncpg's own words, as a simple query."""
DONE = (b"COMMIT\x00", b"SELECT 1\x00")
"""The server's, when it is done."""
_GROUP = sql.batch.COMMIT.strip().encode()


class Commits:
    """What one connection has prepared that commits."""

    def __init__(self) -> None:
        self._names: set[bytes] = set()

    def is_commit(self, data: bytes) -> bool:
        """True if these messages of the client commit something."""
        if data[:1] == b"P":
            name, _, query = data[5:].partition(b"\x00")
            if query.strip().startswith(_GROUP):
                self._names.add(name)
        if data[:1] == b"B":
            _, _, rest = data[5:].partition(b"\x00")
            return rest.partition(b"\x00")[0] in self._names
        return data.endswith(COMMIT)


def is_done(answer: bytes) -> bool:
    """True if the server says that it has committed."""
    return any(done in answer for done in DONE)
