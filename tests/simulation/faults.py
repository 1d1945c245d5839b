"""Brings the faults of a plan about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace import sql
from headrace.engine.worker import Phase
from headrace.log.ports import TopicPartition
from tests.simulation.log.membership import SimulatedMembership
from tests.simulation.loop import OUTSIDE, Handle, Process
from tests.simulation.plan import IN_CLAIMS, Fault
from tests.simulation.pod import Pod
from tests.simulation.service import ABORTED, GROUPS, place_of
from tests.simulation.store.client import Connection
from tests.simulation.store.server import Session
from tests.simulation.store.tables import Tables

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


class Faults:
    """The faults of one run."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._armed: dict[Process, tuple[int, Fault]] = {}
        """By process: after how many of its steps which fault comes."""
        self._in_commit: dict[Process, Fault] = {}
        self._in_claim: list[Fault] = []
        """Those that wait for a process that claims what has emits left."""
        simulation.server.on_commit_command = self._commit_arrives

    def begin(self, fault: Fault) -> None:
        """Bring one about, or arm it."""
        simulation = self._simulation
        simulation.counts[fault.kind] += 1
        simulation.note(f"fault: {fault.kind}")
        pod = self._pod(fault)
        if fault.kind in ("crash", "freeze", "reset", "leave"):
            if pod is not None:
                self._armed[pod.process] = (fault.steps, fault)
                simulation.loop.before_step = self._before_step
        elif fault.kind in IN_CLAIMS:
            self._in_claim.append(fault)
            simulation.loop.before_step = self._before_step
        elif fault.kind in ("reset in commit", "freeze in commit"):
            if pod is not None:
                self._in_commit[pod.process] = fault
        else:
            getattr(self, "_" + fault.kind.replace(" ", "_"))(fault)

    def _before_step(self, handle: Handle) -> None:
        """Let an armed fault come when its step is reached."""
        process = handle.process
        assert process is not None
        if self._in_claim and process not in self._armed and self._claims_emits(process):
            fault = self._in_claim.pop()
            self._armed[process] = (fault.steps, fault)
            self._simulation.slow_until = self._simulation.loop.time() + fault.seconds
        if process not in self._armed:
            return
        steps, fault = self._armed[process]
        if steps > 0:
            self._armed[process] = (steps - 1, fault)
            return
        del self._armed[process]
        if not self._armed and not self._in_claim:
            self._simulation.loop.before_step = None
        number = self._number(process)
        if number is not None:
            self._strike(fault, number)

    def calm(self) -> None:
        """End all faults."""
        self._armed.clear()
        self._in_commit.clear()
        self._in_claim.clear()
        self._simulation.loop.before_step = None
        server, broker = self._simulation.server, self._simulation.broker
        server.is_down = broker.is_down = False
        self._simulation.slow_until = 0.0
        for name in GROUPS.values():
            self._ask(sql.subscription.SET_PAUSED, name, False)
        for pod in self._simulation.pods:
            if pod.process.is_frozen:
                self._simulation.loop.thaw(pod.process)

    def _strike(self, fault: Fault, number: int) -> None:
        simulation = self._simulation
        pod = simulation.slots[number]
        assert pod is not None
        if fault.kind == "crash":
            simulation.end_pod(number, fault.seconds)
        elif fault.kind == "freeze":
            self._freeze(pod.process, fault.seconds)
        elif fault.kind == "shuffle in claim":
            self._shuffle(fault)
        elif fault.kind in ("leave", "leave in claim"):
            simulation.note(f"{pod.process.name} leaves")
            pod.stop()
        else:
            for connection in pod.pool.connections():
                simulation.note(f"{pod.process.name} loses a connection")
                connection.lose()
                simulation.loop.outside(
                    simulation.chance.choice((0.001, 0.5, 3.0)), simulation.server.end, connection.session
                )

    def _freeze(self, process: Process, seconds: float) -> None:
        simulation = self._simulation
        simulation.note(f"{process.name} is frozen")
        simulation.loop.freeze(process)
        simulation.loop.outside(seconds, simulation.loop.thaw, process)

    def _commit_arrives(self, session: Session) -> float | None:
        """Say what happens to a COMMIT: None, nothing; else after how many seconds it takes effect, unheard."""
        fault = self._in_commit.pop(session.process, None) if session.process is not None else None
        if fault is None or session.process is None:
            return None
        if fault.kind == "freeze in commit":
            self._freeze(session.process, fault.seconds)
            return None
        self._simulation.note(f"{session.process.name} loses its connection in COMMIT")
        pod = self._pod_of(session.process)
        for connection in pod.pool.connections() if pod is not None else ():
            if connection.session is session:
                connection.lose()
        way = fault.steps % 3
        return (0.0, -1.0, min(fault.seconds, 9.0))[way]

    # Faults of everybody's

    def _postgres_restarts(self, fault: Fault) -> None:
        self._simulation.server.restart()

    def _postgres_is_down(self, fault: Fault) -> None:
        server = self._simulation.server
        server.restart()
        server.is_down = True
        self._simulation.loop.outside(fault.seconds, setattr, server, "is_down", False)

    def _postgres_is_restored(self, fault: Fault) -> None:
        """Keep a copy now, and go back to it later."""
        simulation = self._simulation
        simulation.loop.outside(fault.seconds, self._restore, simulation.server.tables.copy())

    def _restore(self, copy: Tables) -> None:
        simulation = self._simulation
        if simulation.is_calm:
            return
        simulation.restores += 1
        simulation.note("the database goes back")
        simulation.server.restore(copy)
        simulation.history.restore(copy)

    def _brokers_are_down(self, fault: Fault) -> None:
        broker = self._simulation.broker
        broker.is_down = True
        self._simulation.loop.outside(fault.seconds, setattr, broker, "is_down", False)

    def _expel(self, fault: Fault) -> None:
        for group in self._simulation.groups.values():
            group.expel(fault.target)

    def _shuffle(self, fault: Fault) -> None:
        for group in self._simulation.groups.values():
            group.divide(shuffles=True)

    def _client_dies(self, fault: Fault) -> None:
        pod = self._pod(fault)
        for consumer in pod.consumers if pod is not None else ():
            membership = consumer._membership
            assert isinstance(membership, SimulatedMembership)
            membership.dies = True

    def _open_transaction(self, fault: Fault) -> None:
        number = fault.target % self._simulation.plan.partitions
        self._simulation.broker.hold(TopicPartition("notes", number), fault.seconds)

    def _aborted_records(self, fault: Fault) -> None:
        number = fault.target % self._simulation.plan.partitions
        simulation = self._simulation
        records = [simulation.record(f"page-{fault.target % 8}", ABORTED + count) for count in range(fault.steps % 5)]
        simulation.broker.abort(TopicPartition("notes", number), records)

    def _clock_jumps(self, fault: Fault) -> None:
        pod = self._pod(fault)
        if pod is not None:
            pod.process.clock_offset += float(fault.target - 50)

    def _pause(self, fault: Fault) -> None:
        for name in GROUPS.values():
            self._ask(sql.subscription.SET_PAUSED, name, True)
            self._simulation.loop.outside(fault.seconds, self._ask, sql.subscription.SET_PAUSED, name, False)

    def _replay(self, fault: Fault) -> None:
        """Let a person mend what is poison, and ask for the replay of every dead letter."""
        for row in self._simulation.server.tables.all("dead_letter"):
            if row["decision"] is None:
                self._simulation.world.mended.add(place_of(row["source"], row["event_id"]))
                self._ask(sql.dead_letter.DECIDE, row["id"], "replay", None, "ops", "mended")

    def _ask(self, query: str, *args: object) -> None:
        """Run a statement of an operator's."""
        simulation = self._simulation

        async def ask() -> None:
            connection = Connection(simulation.loop, simulation.server, None, 60.0)
            try:
                await connection.execute(query, *args)
            except Exception as error:
                simulation.note(f"an operator is refused: {type(error).__name__}")
            connection.terminate()

        simulation.loop.call_soon(simulation.loop.create_task, ask(), context=OUTSIDE.copy())

    # Who

    def _pod(self, fault: Fault) -> Pod | None:
        pods = self._simulation.pods
        return pods[fault.target % len(pods)] if pods else None

    def _pod_of(self, process: Process | None) -> Pod | None:
        for pod in self._simulation.slots:
            if pod is not None and pod.process is process:
                return pod
        return None

    def _claims_emits(self, process: Process) -> bool:
        """True if the process has just claimed what has emits left."""
        pod = self._pod_of(process)
        for consumer in pod.consumers if pod is not None else ():
            for worker in consumer.workers.values():
                if worker.phase is Phase.CLAIMING and worker.tenure is not None and worker.tenure.holdings:
                    group, places = consumer.group, worker.tenure.partitions
                    if any(self._simulation.has_unmarked_emits(group, *place) for place in places):
                        return True
        return False

    def _number(self, process: Process) -> int | None:
        for number, pod in enumerate(self._simulation.slots):
            if pod is not None and pod.process is process:
                return number
        return None
