"""Closes aiokafka's consumers whatever state they are in; their own stop() does not manage that in a rebalance."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.group import LeaveGroupRequest

PROMPT_SECONDS = 0.2
STOP_SECONDS = 5.0
STEP_SECONDS = 1.0


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and disconnect. Never raises.

    aiokafka's stop() first waits for a rebalance under way, and a member that has gone by then without a word takes
    part in it all the same: the group would wait for its session timeout, perhaps as its leader. So the group is told
    at once. Nor does stop() manage when a broker is away, since it lets through the CancelledError of a fetch of its
    own that was waiting to try again; then its parts are closed one by one.
    """
    stopping = asyncio.get_running_loop().create_task(consumer.stop())
    if await _is_done(stopping, PROMPT_SECONDS):
        return
    leaving = asyncio.get_running_loop().create_task(_leave(consumer))
    await _is_done(leaving, STEP_SECONDS)
    is_stopped = await _is_done(stopping, STOP_SECONDS)
    await _end(leaving)
    await _end(stopping)
    if is_stopped:
        return
    if consumer._fetcher is not None:
        tasks = [consumer._fetcher._fetch_task, *consumer._fetcher._pending_tasks]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STEP_SECONDS)
    closing = asyncio.get_running_loop().create_task(_closed(consumer))
    await _is_done(closing, STEP_SECONDS)
    await _end(closing)


async def _leave(consumer: AIOKafkaConsumer) -> None:
    """Tell the group, over another connection: the broker reads no request behind a join that it has not answered."""
    coordinator = consumer._coordinator
    if isinstance(coordinator, GroupCoordinator) and coordinator.member_id and coordinator.coordinator_id is not None:
        request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
        await consumer._client.send(coordinator.coordinator_id, request)


async def _closed(consumer: AIOKafkaConsumer) -> None:
    await consumer._client.close()


async def _is_done(task: asyncio.Task[None], seconds: float) -> bool:
    """Return True if the task ended well in time. What it raises, or is cancelled by, stays in the task."""
    await asyncio.wait({task}, timeout=seconds)
    return task.done() and not task.cancelled() and task.exception() is None


async def _end(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=STEP_SECONDS)
