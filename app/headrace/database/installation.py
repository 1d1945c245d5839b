"""The name that a database gives itself when its schema is made: two databases never share a consumer group."""

from __future__ import annotations

from headrace import sql
from headrace.database.pool import Connection


async def read_installation(connection: Connection) -> str:
    """Return the database's name, a UUID. A copy of the database has the same one."""
    return str(await connection.fetchval(sql.installation.READ))
