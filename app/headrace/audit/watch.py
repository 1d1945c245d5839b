"""Audits the subscriptions of a process every hour; of the processes that share one, a single one reads the tables."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import NoReturn

from headrace import sql
from headrace.audit.findings import OF_MEMORY
from headrace.audit.memory import audit_memory
from headrace.audit.record import audit_and_record, log_finding
from headrace.engine.consumer import Consumer
from headrace.engine.context import EngineContext
from headrace.engine.worker import Phase
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.audit")

LOOK_SECONDS = 60.0
"""How often a process asks whether it is its turn; its first audit comes so long after its start."""


async def keep_auditing(context: EngineContext, consumers: Mapping[str, Consumer]) -> NoReturn:
    """Audit until cancelled. Whatever fails is a warning and waits for the next time."""
    every = context.settings.engine.audit_seconds
    remembered_at = 0.0
    while True:
        await asyncio.sleep(min(every, LOOK_SECONDS))
        is_due = time.monotonic() - remembered_at >= every
        if is_due:
            remembered_at = time.monotonic()
        for name, consumer in list(consumers.items()):
            try:
                await audit_in_turn(context, consumer.group)
                if is_due:
                    await audit_owned(context, consumer)
            except Exception as error:
                logger.warning("the audit waits", subscription=name, error=f"{type(error).__name__}: {error}")


async def audit_in_turn(context: EngineContext, group: str) -> None:
    """Compare the tables if no process has begun to for `audit_seconds`. Raises: StateError."""
    engine = context.settings.engine
    async with context.connection() as connection:
        if await connection.fetchval(sql.subscription.TAKE_AUDIT_TURN, group, engine.audit_seconds):
            await audit_and_record(connection, group, engine.dedupe_window_ids)


async def audit_owned(context: EngineContext, consumer: Consumer) -> None:
    """Compare what this process remembers of its partitions with the tables. Raises: StateError."""
    count = 0
    for number, worker in list(consumer.workers.items()):
        if worker.phase is Phase.RUNNING and worker.tenure is not None:
            for finding in await audit_memory(context, consumer.group, number, worker.tenure):
                log_finding(consumer.group, finding)
                count += 1
    context.metrics.audit_mismatches.labels(subscription=consumer.name, check=OF_MEMORY).set(count)
