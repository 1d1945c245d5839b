"""Each checker finds what it is there for in the evidence of a run, and nothing in that of a clean one."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pytest

from tests.crash.checkers import AT_ANY_TIME
from tests.crash.clean_run import ECHO, LISTS, PID, add, clean, found
from tests.crash.cluster import NAME
from tests.crash.evidence import Call, CountedDeath, Evidence, Fenced, LedgerRow
from tests.crash.history import Fault, Sample
from tests.crash.streams import Closed
from tests.support.link import address_of, process_at


def lose(evidence: Evidence) -> None:
    evidence.lists["noted"]["a"] = array("I", [0, 2])


def lose_a_key(evidence: Evidence) -> None:
    del evidence.lists["noted"]["a"]


def double(evidence: Evidence) -> None:
    evidence.lists["noted"]["a"] = array("I", [0, 1, 1, 2])


def overtake(evidence: Evidence) -> None:
    evidence.lists["noted"]["a"] = array("I", [1, 0, 2])


def apply_what_was_aborted(evidence: Evidence) -> None:
    evidence.lists["noted"]["aborted"] = array("I", [0])


def lose_on_the_side(evidence: Evidence) -> None:
    evidence.sided["s"].pop()


def lose_in_the_log(evidence: Evidence) -> None:
    evidence.history.sent.by_key["b"] = 2


def lose_what_was_answered(evidence: Evidence) -> None:
    _post(evidence, [1])


def find_what_nobody_posted(evidence: Evidence) -> None:
    _post(evidence, [0, 1, 3])


def find_in_another_order(evidence: Evidence) -> None:
    _post(evidence, [1, 0])


def _post(evidence: Evidence, numbers: list[int]) -> None:
    """Let the log and the list have these events of a client's key."""
    evidence.streams.by_type["noted"].numbers["p"] = evidence.lists["noted"]["p"] = array("I", numbers)


def drop_silently(evidence: Evidence) -> None:
    del evidence.dead[NAME, 0, 4]


def bury_twice(evidence: Evidence) -> None:
    evidence.dead[NAME, 0, 3] = 2


def bury_the_living(evidence: Evidence) -> None:
    evidence.dead[NAME, 0, 1] = 1


def emit_nothing(evidence: Evidence) -> None:
    evidence.streams.by_type["echoed"].there.clear()


def emit_what_was_rolled_back(evidence: Evidence) -> None:
    evidence.streams.by_type["echoed"].there.take("a", 2)


def emit_under_two_ids(evidence: Evidence) -> None:
    evidence.streams.by_type["echoed"].second_ids.append(("a", 1))


def forget_a_timer(evidence: Evidence) -> None:
    evidence.streams.by_type["reminded"].there.clear()


def lose_in_a_window(evidence: Evidence) -> None:
    evidence.streams.by_type["windowed"].there.clear()


def double_in_a_state_that_expires(evidence: Evidence) -> None:
    evidence.recent["a"].append(1)


def forget_a_call(evidence: Evidence) -> None:
    evidence.calls.clear()


def call_for_nothing(evidence: Evidence) -> None:
    evidence.calls.append(Call("mail", "a", 2, "y"))


def call_with_another_key(evidence: Evidence) -> None:
    evidence.calls.append(Call("mail", "a", 1, "y"))


def leave_a_saga_half_done(evidence: Evidence) -> None:
    evidence.work["a/1"].remove("pay")


def pay_twice(evidence: Evidence) -> None:
    evidence.work["a/1"].append("pay")


def begin_a_saga_for_nothing(evidence: Evidence) -> None:
    evidence.sagas["b/1"] = "completed"


def lose_a_booking(evidence: Evidence) -> None:
    evidence.bookings["account"].pop()


def publish_a_booking_too_early(evidence: Evidence) -> None:
    evidence.streams.by_type["booked"].numbers["account"] = array("I", [2, 1])


def leave_a_gap(evidence: Evidence) -> None:
    evidence.ledger[2] = evidence.ledger[2]._replace(first_offset=4)


def lose_a_row(evidence: Evidence) -> None:
    del evidence.ledger[1]


def end_elsewhere(evidence: Evidence) -> None:
    evidence.claims[LISTS] = 6


def count_wrongly(evidence: Evidence) -> None:
    evidence.ledger[0] = evidence.ledger[0]._replace(applied=1)


def leave_a_lane(evidence: Evidence) -> None:
    evidence.ledger[1] = evidence.ledger[1]._replace(applied=0)


def miscount_dead_letters(evidence: Evidence) -> None:
    evidence.ledger[2] = evidence.ledger[2]._replace(applied=1, dead=1)


def go_back(evidence: Evidence) -> None:
    evidence.history.changes.append(evidence.history.changes[1]._replace(number=3, next_offset=4, sequence=2))


def let_a_zombie_write(evidence: Evidence) -> None:
    taken = evidence.history.changes[1]._replace(number=3, epoch=2, token="u", owner="host/8/1", writer=8)
    evidence.history.changes += [taken, taken._replace(number=4, next_offset=9, sequence=2, writer=PID)]


def bring_an_epoch_back(evidence: Evidence) -> None:
    evidence.history.changes.append(evidence.history.changes[1]._replace(number=3, epoch=1, token="u"))


def grow(evidence: Evidence) -> None:
    evidence.history.samples.append(Sample(2.0, 4, 5, 3, 12, 5_000_000_000))


def open_connections(evidence: Evidence) -> None:
    evidence.history.samples.append(Sample(2.0, 4, 5, 3, 100, 90_000_000))


def find_in_the_audit(evidence: Evidence) -> None:
    evidence.findings.append("lists.lists: something")


def apply_out_of_sequence(evidence: Evidence) -> None:
    add(evidence.streams, "stepped", "s", [0, 2, 1])
    evidence.lists["stepped"]["s"] = array("I", [0, 2, 1])


def go_on_behind_the_end_of_a_state(evidence: Evidence) -> None:
    add(evidence.streams, "reminded", "a", [2])
    evidence.lists["reminded"]["a"].append(2)
    evidence.recent["a"].append(2)
    for number in (1, 2):
        evidence.streams.places["reminded", "a", number] = (f"{NAME}-echoes", 0, number)
        evidence.ledger.append(LedgerRow(ECHO, number + 1, 0, number, number + 1, 1, 0, 0, 0, 100.0 * number))


def commit_an_emit_twice(evidence: Evidence) -> None:
    evidence.ledger[0] = evidence.ledger[0]._replace(emitted=("x",))
    evidence.ledger[1] = evidence.ledger[1]._replace(emitted=("x",))


def publish_before_the_commit(evidence: Evidence) -> None:
    evidence.ledger[0] = evidence.ledger[0]._replace(began_at=50.0)
    evidence.streams.places["noted", "a", 1] = (NAME, 0, 1)
    evidence.streams.published["echoed"]["a", 1] = 49.0


def fire_too_early(evidence: Evidence) -> None:
    publish_before_the_commit(evidence)
    evidence.streams.published["echoed"].clear()
    evidence.streams.published["reminded"]["a", 1] = 50.9


def close_a_window_twice(evidence: Evidence) -> None:
    evidence.streams.closed["a", "12:00"] = Closed({1, 2}, {1})


def hear_nothing(evidence: Evidence) -> None:
    for numbers in (evidence.streams.by_type["echoed"].there, evidence.streams.asked["echoes"]):
        numbers.take("a", 5)


def call_before_the_commit(evidence: Evidence) -> None:
    evidence.ledger.append(LedgerRow((f"{NAME}.mails", f"{NAME}-told", 0), 1, 0, 0, 1, 1, 0, 0, 0, 50.0))
    evidence.streams.places["told", "a", 1] = (f"{NAME}-told", 0, 0)
    evidence.calls[0] = evidence.calls[0]._replace(at=49.0)


def ask_again_for_an_answer(evidence: Evidence) -> None:
    evidence.calls.append(Call("step", "a", 1, "x"))


def call_while_another_waits(evidence: Evidence) -> None:
    add(evidence.streams, "told", "a", [2])
    evidence.calls += [Call("step", "a", 2, "y"), Call("mail", "a", 2, "y"), Call("mail", "a", 1, "x")]


def remember_something_else(evidence: Evidence) -> None:
    evidence.memory.append("lists.lists/0: the numbers of 'a' is version 2, but its owner remembers version 1.")


def lose_a_claim_to_nobody(evidence: Evidence) -> None:
    evidence.history.changes.append(evidence.history.changes[1]._replace(number=3, epoch=2, token="u"))
    evidence.fenced.add(Fenced(LISTS, 1))


def refuse_for_nothing(evidence: Evidence) -> None:
    evidence.refused.add("partition refused: lists/0")


def end_one_process_after_the_other(evidence: Evidence) -> None:
    evidence.deaths["a-1"] = 9


def count_an_attempt_twice(evidence: Evidence) -> None:
    evidence.jumps.append("('lists.lists', b'a', 1, 3)")


def count_the_death_of_nobody(evidence: Evidence) -> None:
    evidence.counted_deaths.append(CountedDeath(f"{NAME}.lists", 0, PID))


PLANTED: dict[Callable[[Evidence], None], str] = {
    lose: "I1",
    lose_a_key: "I1",
    apply_what_was_aborted: "I1",
    lose_on_the_side: "I1",
    lose_in_the_log: "I1",
    lose_what_was_answered: "I1",
    find_what_nobody_posted: "I1",
    find_in_another_order: "I3",
    drop_silently: "I1",
    bury_the_living: "I1",
    double: "I2",
    bury_twice: "I2",
    overtake: "I3",
    emit_nothing: "I4",
    emit_what_was_rolled_back: "I4",
    emit_under_two_ids: "I4",
    forget_a_timer: "I4",
    lose_in_a_window: "I4",
    double_in_a_state_that_expires: "I2",
    publish_a_booking_too_early: "I4",
    lose_a_booking: "I1",
    forget_a_call: "I8",
    call_for_nothing: "I8",
    call_with_another_key: "I8",
    leave_a_saga_half_done: "saga",
    pay_twice: "saga",
    begin_a_saga_for_nothing: "saga",
    leave_a_gap: "I5",
    lose_a_row: "I5",
    end_elsewhere: "I5",
    go_back: "I6",
    let_a_zombie_write: "I7",
    bring_an_epoch_back: "I7",
    grow: "I11",
    open_connections: "I11",
    count_wrongly: "I12",
    leave_a_lane: "I12",
    miscount_dead_letters: "I12",
    find_in_the_audit: "audit",
    apply_out_of_sequence: "I3",
    go_on_behind_the_end_of_a_state: "I2",
    commit_an_emit_twice: "I4",
    publish_before_the_commit: "I4",
    fire_too_early: "I4",
    close_a_window_twice: "I2",
    hear_nothing: "I4",
    call_before_the_commit: "I8",
    ask_again_for_an_answer: "I8",
    call_while_another_waits: "I8",
    remember_something_else: "I9",
    lose_a_claim_to_nobody: "I7",
    refuse_for_nothing: "I1",
    end_one_process_after_the_other: "I12",
    count_an_attempt_twice: "I12",
    count_the_death_of_nobody: "I12",
}


def test_clean_run_violates_nothing() -> None:
    assert found(clean()) == set()


@pytest.mark.parametrize(
    ("applied", "invariant"), [([], None), ([0], None), ([0, 2], "I3"), ([0, 0], "I2"), ([0, 7], "I1")]
)
def test_stuck_run_is_judged_by_what_it_has_applied_so_far(applied: list[int], invariant: str | None) -> None:
    evidence = clean()
    evidence.lists["noted"]["a"] = array("I", applied)
    assert {each.invariant for check in AT_ANY_TIME for each in check(evidence)} == ({invariant} - {None})


def test_claim_that_another_owner_took_is_not_lost_for_nothing() -> None:
    evidence = clean()
    evidence.history.changes.append(
        evidence.history.changes[1]._replace(number=3, epoch=2, token="u", owner="host/8/1", writer=8)
    )
    evidence.fenced.add(Fenced(LISTS, 1))
    assert found(evidence) == set()


def test_changes_that_are_seen_late_went_nowhere() -> None:
    """Postgres shows a transaction that began early and waited before the one that it waited for."""
    evidence = clean()
    evidence.history.changes.reverse()
    assert found(evidence) == set()


@pytest.mark.parametrize(("seconds", "invariants"), [(95.0, set()), (80.0, {"I2"})])
def test_state_outlives_its_end_in_a_batch_that_a_fault_holds_up(seconds: float, invariants: set[str]) -> None:
    evidence = clean()
    go_on_behind_the_end_of_a_state(evidence)
    evidence.history.began_at = 50.0
    evidence.history.faults.append(Fault("freeze in COMMIT", "", 60.0, 60.0 + seconds))
    assert found(evidence) & {"I2"} == invariants


@pytest.mark.parametrize("process", [1, 65_535, 65_536, 4_194_304])
def test_address_of_a_link_names_its_process(process: int) -> None:
    assert process_at(address_of(process)) == process
    assert process_at("127.0.0.1") == 0


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_planted_violation_is_found_by_its_invariant(plant: Callable[[Evidence], None]) -> None:
    evidence = clean()
    plant(evidence)
    assert PLANTED[plant] in found(evidence)
