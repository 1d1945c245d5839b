"""A dry run of a platform's handlers, as the command makes it."""

from __future__ import annotations

from headrace import Headrace
from headrace.database.pool import connect
from headrace.rewind.difference import Difference
from headrace.rewind.dry_run import dry_run
from headrace.rewind.plan import Target
from headrace.runtime import Runtime

BEGINNING = Target()


async def rehearsed(
    runtime: Runtime, database_url: str, platform: Headrace, target: Target = BEGINNING, name: str = "sales"
) -> Difference:
    """Run the platform's handlers dry, over what the runtime has applied."""
    assert runtime.log is not None
    platform.registry.complete()
    connection = await connect(database_url)
    await connection.execute("set default_transaction_read_only = on")
    try:
        subscription = platform.registry.subscriptions[name]
        return await dry_run(connection, runtime.log, platform.registry, subscription, platform.settings, target)
    finally:
        await connection.close()
