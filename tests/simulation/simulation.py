"""One run of a plan: starts the processes, publishes, brings the faults about, waits until all is quiet, and judges."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Literal

from headrace.cloudevents import encode_record
from headrace.envelope import Envelope
from headrace.log.ports import NewRecord, TopicPartition
from tests.simulation import service
from tests.simulation.checkers import AT_APPEND, AT_COMMIT, AT_END, NOW_AND_THEN
from tests.simulation.checkers.calls import check_call
from tests.simulation.checkers.violation import Violation
from tests.simulation.clock import chance_of_its_own, virtual_time
from tests.simulation.faults import Faults
from tests.simulation.history import History
from tests.simulation.log.broker import Broker, Partition
from tests.simulation.log.client import SimulatedLog
from tests.simulation.log.group import Group
from tests.simulation.loop import PROCESS, EndlessError, Loop
from tests.simulation.plan import Plan, PlannedEvent
from tests.simulation.pod import Pod
from tests.simulation.sinks import Call
from tests.simulation.store.client import Pool
from tests.simulation.store.server import Server
from tests.simulation.store.transaction import Transaction

QUIET_SECONDS = 400.0
"""After the last fault, all that was accepted comes to its end within this time."""
OUTAGE_SECONDS = 60.0
"""After so long, an outage is over that is still met then."""
SESSION_SECONDS, REBALANCE_SECONDS, HEARTBEAT_SECONDS = 6.0, 6.0, 1.5
RESTART_SECONDS = 2.0
SLOW_SECONDS = 2.0


@dataclass
class Result:
    """What became of a run."""

    plan: Plan
    violation: Violation | None
    seconds: float
    """Virtual ones."""
    steps: int
    trace: str
    counts: Counter[str] = field(default_factory=Counter)


class Simulation:
    """All that exists in one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = Random(f"run {plan.seed}")
        self.loop = Loop(Random(f"order {plan.seed}"))
        self.world = service.begin_world()
        self.world.kill = self._kill_current
        self.world.outside.heard = self._called
        self.server = Server(self.loop, self._latency)
        self.server.before_commit = self._before_commit
        self.broker = Broker(self.loop, self._latency, Random(f"broker {plan.seed}"))
        self.broker.failing = plan.publish_failures
        self.broker.before_append = self._before_append
        self.groups: dict[str, Group] = {}
        for topic, name in service.GROUPS.items():
            places = [TopicPartition(topic, number) for number in range(plan.partitions)]
            self.broker.topics[topic] = _partitions(plan.partitions)
            self.groups[name] = Group(self.loop, self.chance, places, SESSION_SECONDS, REBALANCE_SECONDS)
        self.settings = service.settings(plan)
        self.platform = service.platform(plan.style, plan.sink, has_steps=plan.late_seconds > 0)
        self.slots: list[Pod | None] = [None] * plan.processes
        self._started = 0
        self.restores = 0
        self.slow_until = 0.0
        """Until then each message takes up to `SLOW_SECONDS` longer."""
        self.history = History()
        self.violation: Violation | None = None
        self.counts: Counter[str] = Counter()
        self.log: list[str] = []
        """What happened, for a person."""
        self._hash = hashlib.blake2b(digest_size=8)
        self.is_calm = False
        self._is_over = False
        self.faults = Faults(self)

    def run(self) -> Result:
        """Run to the end."""
        _leave_out_what_is_here()
        gc.disable()
        try:
            with virtual_time(self.loop), chance_of_its_own(self.plan.seed):
                try:
                    self.loop.run(self._main())
                except Violation as violation:
                    self.violation = self.violation or violation
                except EndlessError as error:
                    self.violation = Violation("I10 liveness", str(error))
        finally:
            gc.enable()
        return Result(self.plan, self.violation, self.loop.time(), self.loop.steps, self._hash.hexdigest(), self.counts)

    def note(self, what: str) -> None:
        """Keep what happened, for the trace."""
        if not self.loop.is_running():
            return
        self._hash.update(f"{self.loop.time():.9f} {self.loop.steps} {what}\n".encode())
        self.log.append(f"{self.loop.time():9.4f} {what}")

    @property
    def pods(self) -> list[Pod]:
        """Return the processes that have not ended."""
        return [pod for pod in self.slots if pod is not None]

    async def _main(self) -> None:
        plan = self.plan
        for number in range(plan.processes):
            self.loop.outside(self.chance.uniform(0, 5), self.start_pod, number)
        for event in plan.events:
            self.world.plans[event.page, event.number] = event
            for at in (event.at, *event.copies):
                self.loop.outside(at, self._publish, event)
        last_step = self._plan_steps()
        for fault in plan.faults:
            self.loop.outside(fault.at, self.faults.begin, fault)
        ends = [event.at for event in plan.events] + [at for event in plan.events for at in event.copies]
        ends += [fault.at + fault.seconds for fault in plan.faults] + [last_step]
        await self._sleep_until(max(ends, default=0.0) + 1.0)
        self.is_calm = True
        self.broker.failing = 0.0
        self.faults.calm()
        self.note("calm")
        await self._until_quiet()
        for check in AT_END:
            check(self)
        if plan.stop_at_end:
            await self._stop_all()
            for check in AT_END:
                check(self)
        if self.loop.errors:
            raise Violation("no error is left to the loop", self.loop.errors[0])

    async def _sleep_until(self, at: float) -> None:
        while self.loop.time() < at:
            await asyncio.sleep(min(1.0, at - self.loop.time() + 1e-6))
            self._look()

    async def _until_quiet(self) -> None:
        outages_end_at, deadline, quiet = self.loop.time() + OUTAGE_SECONDS, self.loop.time() + QUIET_SECONDS, 0
        while quiet < 2:  # once more after a while: what was emitted is on its way
            await asyncio.sleep(4.0)
            self._look()
            if self.loop.time() > outages_end_at:
                self._end_outages()
            reason = self.unrest()
            quiet = quiet + 1 if reason is None else 0
            if self.loop.time() > deadline:
                raise Violation("I10 liveness", f"{QUIET_SECONDS:.0f} s after the last fault, {reason}.")

    def _end_outages(self) -> None:
        """Mend what is poison, if there is so much of it that it is taken for an outage."""
        if any(consumer.breaker.outage is not None for pod in self.pods for consumer in pod.consumers):
            self.world.mended |= self.world.plans.keys()

    async def _stop_all(self) -> None:
        self.note("all stop")
        self._is_over = True
        for pod in self.pods:
            pod.stop()
        for _ in range(60):
            await asyncio.sleep(1.0)
            if all(pod.has_stopped for pod in self.pods):
                return
        raise Violation("I10 liveness", "a process does not stop within a minute.")

    def _look(self) -> None:
        """Do what a cluster does: end what is beyond repair, start what has ended. Raises: Violation."""
        if self.violation is not None:
            raise self.violation
        for check in NOW_AND_THEN:
            check(self)
        for number, pod in enumerate(self.slots):
            if pod is not None and pod.process.is_alive and (pod.failures or pod.has_stopped):
                if pod.failures and self.is_calm:
                    raise Violation("I10 liveness", f"{pod.process.name} is beyond repair: {pod.failures}")
                self.end_pod(number, RESTART_SECONDS)

    def unrest(self) -> str | None:
        """Return what is still to be done; None if all is quiet."""
        tables = self.server.tables
        for topic, group in service.GROUPS.items():
            for number, partition in enumerate(self.broker.topics[topic]):
                claim = tables.get("claim", (group, topic, number))
                at = claim["next_offset"] if claim is not None else 0
                if at < len(partition.places):
                    return f"{topic}/{number} is applied to {at} of {len(partition.places)}"
                if self.has_unmarked_emits(group, topic, number):
                    return f"emits of {topic}/{number} are not marked"
        for table in ("lane", "parked", "timer", "effect"):
            if rows := tables.all(table):
                return f"{len(rows)} rows are left in {table}"
        if any(row["decision"] == "replay" and row["settled_at"] is None for row in tables.all("dead_letter")):
            return "replays wait"
        return None

    def has_unmarked_emits(self, group: str, topic: str, partition: int) -> bool:
        """True if a claim has emits of which Postgres does not say that they are in the log."""
        tables = self.server.tables
        claim = tables.get("claim", (group, topic, partition))
        return claim is not None and any(
            row["emits"] is not None and row["sequence"] > claim["emitted_through"]
            for row in tables.group("ledger", (group, topic, partition)).values()
        )

    # Processes

    def start_pod(self, number: int) -> None:
        """Start a process where none runs."""
        if self.slots[number] is not None or self._is_over:
            return
        self._started += 1
        name = f"pod-{number}.{self._started}"
        log = SimulatedLog(self.loop, self.broker, self.groups, HEARTBEAT_SECONDS)
        pod = Pod(self.loop, name, self.platform, self.settings, log, Pool(self.loop, self.server, 4, 5.0))
        pod.pool.process = pod.process
        self.slots[number] = pod
        self.note(f"{name} starts")
        pod.start()

    def end_pod(self, number: int, restart_seconds: float) -> None:
        """End a process between two steps, and start the next one after a while."""
        pod = self.slots[number]
        if pod is None:
            return
        self.note(f"{pod.process.name} ends")
        self.counts["ended"] += 1
        self.loop.end(pod.process)
        for connection in pod.pool.connections():
            # The kernel closes the sockets, or the machine is gone and the server finds out by its keepalives.
            delay = self.chance.choice((0.001, 0.1, 8.0)) * self.chance.random()
            self.loop.outside(delay, self.server.end, connection.session)
        self.slots[number] = None
        self.loop.outside(restart_seconds, self.start_pod, number)

    def _kill_current(self) -> None:
        """End the process whose handler runs, before its next step."""
        process = PROCESS.get()
        for number, pod in enumerate(self.slots):
            if pod is not None and pod.process is process:
                self.counts["killed by an event"] += 1
                self.end_pod(number, RESTART_SECONDS)

    # Events

    def _publish(self, event: PlannedEvent) -> None:
        self.broker.append([self.record(event.page, event.number)])

    def _plan_steps(self) -> float:
        """Publish a numbered event for each of the stream, some of them late; return when the last one comes."""
        numbers, last = Counter[str](), 0.0
        for event in self.plan.events if self.plan.late_seconds else ():
            numbers[event.page] += 1
            page, number = event.page, numbers[event.page]
            for begun in (event.at, *event.copies):
                at = begun + self.chance.choice((0.0, self.chance.uniform(0, self.plan.late_seconds)))
                last = max(last, at)
                self.loop.outside(at, self._publish_step, page, number)
        return last

    def _publish_step(self, page: str, number: int) -> None:
        self.broker.append([self.record(page, number, "step")])

    def record(self, page: str, number: int, kind: Literal["note", "step"] = "note") -> NewRecord:
        """Return the record of one event of a stream."""
        event = (service.Noted if kind == "note" else service.Stepped)(page=page, number=number)
        source, id_ = service.identity_of(page, number)
        envelope = Envelope(
            id=id_,
            source=source,
            type="noted" if kind == "note" else "stepped",
            datacontenttype="application/json",
            partitionkey=page,
            sequence=None if kind == "note" else str(number),
        )
        return encode_record(envelope, event.model_dump_json().encode(), topic=f"{kind}s", key=page)

    def _before_commit(self, transaction: Transaction) -> None:
        process = transaction.session.process
        tables = ",".join(dict.fromkeys(table for table, _ in transaction.written))
        self.note(f"{process.name if process is not None else 'operator'} commits {tables}")
        if self.violation is None:
            try:
                for check in AT_COMMIT:
                    check(self, transaction)
            except Violation as violation:
                self.violation = violation
        self.history.follow(transaction)

    def _called(self, call: Call) -> None:
        if self.violation is None:
            try:
                check_call(self, call)
            except Violation as violation:
                self.violation = violation

    def _before_append(self, records: Sequence[NewRecord]) -> None:
        if self.violation is None:
            try:
                for check in AT_APPEND:
                    check(self, records)
            except Violation as violation:
                self.violation = violation

    def _latency(self) -> float:
        chance = self.chance.random()
        more = self.chance.uniform(0.0, SLOW_SECONDS) if self.loop.time() < self.slow_until else 0.0
        return self.plan.latency * (chance if chance < 0.98 else chance * 20) + more


def _partitions(count: int) -> list[Partition]:
    return [Partition() for _ in range(count)]


def simulate(plan: Plan) -> Result:
    """Run a plan."""
    return Simulation(plan).run()


@cache
def _leave_out_what_is_here() -> None:
    """Let what is here before the first run not be looked at behind each."""
    gc.freeze()
