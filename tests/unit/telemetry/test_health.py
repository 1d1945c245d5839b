from __future__ import annotations

import json
import threading

from headrace.telemetry.health import Health


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def started(clock: Clock | None = None) -> Health:
    health = Health(clock or Clock())
    health.started = True
    return health


def test_a_started_process_without_reasons_is_live_and_ready() -> None:
    health = started()
    assert health.liveness() == (True, [])
    assert health.readiness() == (True, [])
    assert health.ready_report().status == 200
    assert json.loads(health.ready_report().body) == {"ready": True, "reasons": []}
    assert json.loads(health.live_report().body) == {"live": True, "reasons": []}


def test_starting_process_is_live_but_neither_ready_nor_started() -> None:
    health = Health(Clock())
    assert health.live_report().status == 200
    assert health.live_report(is_startup=True).status == 503
    assert health.readiness() == (False, ["starting"])
    health.started = True
    assert health.live_report(is_startup=True).status == 200


def test_each_reason_against_being_ready_must_be_cleared() -> None:
    health = started()
    health.not_ready("schema_too_old", "The database has version 3, this code needs 4.")
    health.not_ready("draining")
    report = health.ready_report()
    assert report.status == 503
    assert json.loads(report.body) == {
        "ready": False,
        "reasons": ["draining", "schema_too_old"],
        "details": {"schema_too_old": "The database has version 3, this code needs 4."},
    }
    health.ready("schema_too_old")
    health.ready("schema_too_old")
    assert health.readiness() == (False, ["draining"])
    health.ready("draining")
    assert health.readiness() == (True, [])


def test_a_reason_against_being_ready_does_not_restart_the_pod() -> None:
    health = started()
    health.not_ready("never_connected")
    assert health.liveness() == (True, [])


def test_a_failed_process_stays_failed() -> None:
    health = started()
    health.fail("consumer_stuck", "Three new clients did not help.")
    health.ready("consumer_stuck")
    assert health.liveness() == (False, ["consumer_stuck"])
    assert health.live_report().status == 503


def test_a_loop_that_is_silent_for_a_minute_is_beyond_repair() -> None:
    clock = Clock()
    health = started(clock)
    health.loop_ticked()
    clock.now += 60
    assert health.liveness() == (True, [])
    clock.now += 1
    assert health.liveness() == (False, ["loop_silent"])
    health.loop_ticked()
    assert health.liveness() == (True, [])


def test_loop_is_not_missed_before_its_first_tick_or_after_end() -> None:
    clock = Clock()
    health = started(clock)
    clock.now += 1_000
    assert health.liveness() == (True, [])
    health.loop_ticked()
    health.loop_stopped()
    clock.now += 1_000
    assert health.liveness() == (True, [])


def test_threads_may_name_and_clear_reasons_while_probes_ask() -> None:
    health = started()

    def work(number: int) -> None:
        for _ in range(500):
            health.not_ready(f"reason_{number}")
            health.ready_report()
            health.ready(f"reason_{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert health.readiness() == (True, [])
