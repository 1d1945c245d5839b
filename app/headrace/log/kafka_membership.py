"""A seat in a Kafka consumer group: says which partitions are ours, and reads nothing.

```
away ──bootstrap──▶ waiting ──joined──▶ assigned ──rebalance──▶ rebalancing ──joined──▶ assigned
  ▲   ◀──── back-off ────┘                 │                         │
  └────── client died: lost ◀──────────────┴─────────────────────────┘
```
aiokafka knows the eager protocol only: in a rebalance every member gives all partitions up, and gets its share of them
again. Nothing stands still for that here. Progress is guarded by the claims, so a member goes on with what it has
until it is told what it keeps; the assignor leaves it what it can; and who leaves tells the others first, and works
until they have divided what it had.

Everything that is assigned is paused, so no record is ever fetched: offsets come from the claims, and readers read. A
task of its own keeps calling `getmany`, because only that resets the clock by which aiokafka decides that a member is
idle, stops its heartbeat and never joins again (aiokafka issues 1187, 720, 764). `getmany` is never cancelled while the
client lives; after any error out of it the client is replaced.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.structs import TopicPartition as KafkaPartition

from headrace.errors import HeadraceError
from headrace.log.kafka_assignor import IdentityAssignor
from headrace.log.kafka_client import make_consumer
from headrace.log.kafka_closing import STOP_SECONDS, close_consumer
from headrace.log.kafka_connection import Options, translate
from headrace.log.kafka_control import KafkaControl
from headrace.log.ports import AssignmentListener, TopicPartition
from headrace.log.refusals import no_such_topic
from headrace.settings import KafkaSettings
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.log")

POLL_SECONDS = 0.5
METADATA_MILLISECONDS = 30_000
"""How old what is known of the topics may be: partitions that were added, or accepted, have an owner after this."""
COMMIT_SECONDS = 5.0
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.5, 10.0
REBALANCE_SECONDS = 15.0
"""How long a rebalance waits for a member that is silent. Nobody has to finish anything for it, so a member that takes
longer is frozen or dead; what belongs to the dead stands still meanwhile."""
HEARTBEATS_TO_HEAR = 1.25
"""The others hear of a rebalance in the answer to their next heartbeat."""
HEARTBEATS_TO_DIVIDE = 5.0
LONGEST_DIVIDING_SECONDS = 5.0
"""A member that leaves works until the others have divided what it had, or for this long: a stop has a deadline."""
LOOK_SECONDS = 0.05


class KafkaMembership:
    """One consumer of the group, replaced whenever it fails."""

    def __init__(
        self,
        group: str,
        topics: Sequence[str],
        listener: AssignmentListener,
        identity: str,
        control: KafkaControl,
        options: Options,
        settings: KafkaSettings,
    ) -> None:
        self._group = group
        self._topics = list(topics)
        self._listener = listener
        self._identity = identity
        self._refusal = ""
        self._control = control
        self._options = options
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._owned: frozenset[TopicPartition] = frozenset()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._is_joined = False
        self._is_seated = False
        self._is_dividing = False
        """True from the beginning of a rebalance until it is told what is ours."""
        self._assignor = IdentityAssignor(identity)

    async def start(self) -> None:
        """Join in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"membership {self._group}")

    async def stop(self) -> None:
        """Leave the group without telling the listener; return when the others have divided it. Never raises."""
        self._is_stopping = True
        is_alone, left_at = self.is_alone, asyncio.get_running_loop().time()
        if self._consumer is not None and self._is_seated:
            await close_consumer(self._consumer)  # before the task is cancelled in getmany, so that the group is left
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
        if self._consumer is not None:
            await close_consumer(self._consumer)
        if not is_alone:
            await self._wait_for_the_others(left_at)

    async def _wait_for_the_others(self, left_at: float) -> None:
        """Return when the members that stay know what is theirs; if nobody tells, when they have heard of it."""
        heartbeat = self._settings.heartbeat_seconds
        longest = min(HEARTBEATS_TO_DIVIDE * heartbeat, LONGEST_DIVIDING_SECONDS)
        try:
            async with asyncio.timeout_at(left_at + longest):
                while True:
                    if not await self._control.is_dividing(self._group):
                        return
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            return
        except HeadraceError as error:
            logger.debug("the group does not tell its state", group=self._group, error=str(error))
            heard_at = left_at + min(HEARTBEATS_TO_HEAR * heartbeat, longest)
            await asyncio.sleep(heard_at - asyncio.get_running_loop().time())

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit the offsets of the partitions that are ours, for lag tools. Never raises.

        Not in a rebalance: the broker may refuse it then, and aiokafka takes a refusal for a reason to join once more,
        which would be the next rebalance (test_nothing_is_committed_in_a_rebalance).
        """
        consumer = self._consumer
        ours = {KafkaPartition(*partition): offset for partition, offset in offsets.items() if partition in self._owned}
        if consumer is None or not ours or self._is_dividing:
            return
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await consumer.commit(ours)
        except Exception as error:  # only a hint: progress is in the claims
            logger.debug("group offsets not committed", group=self._group, error=str(error))

    @property
    def is_joined(self) -> bool:
        """True from the first time that the group was joined or waited for; an outage later does not change it."""
        return self._is_joined

    @property
    def is_alone(self) -> bool:
        """True if the last assignment had no other member, or there was none."""
        return not self._owned or self._assignor.member_count == 1

    async def _run(self) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        said: str | None = None
        while not self._is_stopping:
            try:
                consumer = await self._connect()
                retry_seconds, said = FIRST_RETRY_SECONDS, None
                await self._sit(consumer)
            except Exception as error:
                sentence = str(error if isinstance(error, HeadraceError) else self._explain(error))
                if sentence != said and not self._is_stopping:
                    logger.warning("the group cannot be joined; trying again", group=self._group, error=sentence)
                    said = sentence
            await self._give_up()
            await asyncio.sleep(retry_seconds * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            retry_seconds = min(2 * retry_seconds, LONGEST_RETRY_SECONDS)

    async def _connect(self) -> AIOKafkaConsumer:
        found = await self._control.topics(self._topics)
        for topic in self._topics:
            if topic not in found:
                raise no_such_topic(topic)
        # Made and started together: a client that starts later than max_poll after it was made never joins (issue 764).
        self._assignor = IdentityAssignor(self._identity)
        consumer = self._consumer = make_consumer(
            self._options,
            group_id=self._group,
            partition_assignment_strategy=(self._assignor,),
            metadata_max_age_ms=METADATA_MILLISECONDS,
            session_timeout_ms=round(self._settings.session_timeout_seconds * 1000),
            heartbeat_interval_ms=round(self._settings.heartbeat_seconds * 1000),
            max_poll_interval_ms=round(self._settings.max_poll_seconds * 1000),
            rebalance_timeout_ms=round(min(REBALANCE_SECONDS, self._settings.session_timeout_seconds) * 1000),
            enable_auto_commit=False,
            auto_offset_reset="latest",  # of partitions that stay paused
            isolation_level="read_committed",
            max_partition_fetch_bytes=1_024,
            fetch_max_bytes=1_024,
        )
        async with asyncio.timeout(self._settings.request_timeout_seconds):
            await consumer.start()
        return consumer

    async def _sit(self, consumer: AIOKafkaConsumer) -> None:
        """Stay in the group until the client dies or a listener failed. Raises what getmany raises."""
        told = _Told(self, consumer, self._assignor)
        consumer.subscribe(topics=self._topics, listener=told)
        self._is_joined = self._is_seated = True
        while not self._is_stopping and not told.failed:
            await consumer.getmany(timeout_ms=round(POLL_SECONDS * 1000))

    async def _give_up(self) -> None:
        """Give the seat up: the partitions leave first, then the client does."""
        self._is_seated = False
        await self._tell_lost()
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await close_consumer(consumer)

    async def _tell_lost(self) -> bool:
        leaving, self._owned = self._owned, frozenset()
        if not leaving or self._is_stopping:
            return True
        return await self._tell("lost", self._listener.lost(leaving))

    async def _tell_assigned(self, partitions: Iterable[KafkaPartition], *, was_removed: bool) -> bool:
        self._owned = frozenset(TopicPartition(*partition) for partition in partitions)
        return await self._tell("assigned", self._listener.assigned(self._owned, was_removed=was_removed))

    async def _tell_refused(self, reason: str) -> bool:
        if reason == self._refusal:
            return True
        self._refusal = reason
        return await self._tell("refused", self._listener.refused(reason))

    async def _tell(self, what: str, telling: Awaitable[None]) -> bool:
        """Return False if the listener failed or cancelled itself: neither may end the task that tells it."""
        try:
            await telling
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            logger.exception("a membership's listener was cancelled", group=self._group, told=what)
            return False
        except Exception:
            logger.exception("a membership's listener failed", group=self._group, told=what)
            return False
        return True

    def _explain(self, error: Exception) -> HeadraceError:
        return translate(error, ",".join(self._options["bootstrap_servers"]), self._options)


class _Told(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka's listener. What it raises would be swallowed, so a failure is remembered and ends the seat."""

    def __init__(self, membership: KafkaMembership, consumer: AIOKafkaConsumer, assignor: IdentityAssignor) -> None:
        self._membership = membership
        self._consumer = consumer
        self._assignor = assignor
        self._member = ""
        self.failed = False

    async def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        membership = self._membership
        membership._is_dividing = True
        if membership._owned and not await membership._tell("rebalancing", membership._listener.rebalancing()):
            self.failed = True

    async def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        self._consumer.pause(*assigned)
        self._membership._is_dividing = False
        told = await self._membership._tell_refused(self._assignor.conflict)
        before, self._member = self._member, self._consumer._coordinator.member_id
        was_removed = before not in ("", self._member)  # the group did not know it any longer
        if not await self._membership._tell_assigned(assigned, was_removed=was_removed) or not told:
            self.failed = True
