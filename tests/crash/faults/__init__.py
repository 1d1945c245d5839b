"""What is done to a run: each kind of fault is a function that returns when the fault itself is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from tests.crash.faults import commits, events, kafka, log, network, postgres, processes
from tests.crash.history import Fault
from tests.crash.machine import Machine
from tests.crash.plan import PUT_BACK, Step

FAULTS: Mapping[str, Callable[[Machine, Step, Fault], Awaitable[None]]] = {
    "kill": processes.kill,
    "leave": processes.leave,
    "die at a point": processes.die_at_point,
    "freeze": processes.freeze,
    "freeze at a point": processes.freeze_at_point,
    "crowd the processors": processes.crowd,
    "die in COMMIT": commits.die_in_commit,
    "freeze in COMMIT": commits.freeze_in_commit,
    "freeze before COMMIT arrives": commits.freeze_before_commit,
    "lose COMMIT": commits.lose_commit,
    "lose the answer to COMMIT": commits.lose_answer,
    "reset Postgres": network.reset_postgres,
    "slow Postgres": network.slow_postgres,
    "lose Postgres": network.lose_postgres,
    "reset Kafka": network.reset_kafka,
    "slow Kafka": network.slow_kafka,
    "lose Kafka": network.lose_kafka,
    "kill Postgres": postgres.kill_postgres,
    "restart Postgres": postgres.restart_postgres,
    "end sessions": postgres.end_sessions,
    "lock claims": postgres.lock_claims,
    "deadlock": postgres.deadlock,
    "exhaust connections": postgres.exhaust_connections,
    PUT_BACK: postgres.put_back,
    "kill a broker": kafka.kill_broker,
    "freeze a broker": kafka.freeze_broker,
    "abort a transaction": kafka.abort_transaction,
    "hang a transaction": kafka.hang_transaction,
    "make a topic again": log.make_again,
    "cut a log off": log.cut_off,
    "add a partition": log.grow,
    "hang in a handler": events.hang,
    "block in a handler": events.block,
    "die in a handler": events.die,
    "die in a lane": events.doom,
}
