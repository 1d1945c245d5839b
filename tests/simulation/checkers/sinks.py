"""I1, I2, I3, I8: what becomes of the emits, in each way in which the subscription `echoes` may keep them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from headrace.cloudevents import decode_record
from tests.simulation.checkers.applied import check_order, log_order, numbers_by_page
from tests.simulation.checkers.violation import Violation
from tests.simulation.service import GROUPS

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation
    from tests.simulation.store.transaction import Transaction

EXPIRED_SECONDS = 60.0
"""A batch that read a state in its last second may take so long at most, frozen or not."""


def check_sink(simulation: Simulation) -> None:
    """Compare what has become of the emits with the log. Raises: Violation."""
    match simulation.plan.sink:
        case "windows":
            _check_windows(simulation)
        case "effects":
            _check_told(simulation)
        case "expiring":
            _check_heard(simulation, simulation.history.heard)
        case _:
            _check_heard(simulation, numbers_by_page(simulation, "echoes"))


def _check_heard(simulation: Simulation, heard: dict[str, list[int]]) -> None:
    for page, order in log_order(simulation, "echoes").items():
        numbers = heard.get(page, [])
        _check_once(page, numbers)
        _check_all(page, order, numbers)
        check_order(f"echoes of {page}", numbers, order)


def _check_once(page: str, numbers: Iterable[int]) -> None:
    if repeated := [number for number, times in Counter(numbers).items() if times > 1]:
        raise Violation("I2 applied once", f"echoes of {page} has {repeated} more than once")


def _check_all(page: str, order: Iterable[int], numbers: Iterable[int]) -> None:
    if missing := set(order) - set(numbers):
        raise Violation("I1 nothing is lost", f"echoes of {page} lacks {sorted(missing)}")


def _check_windows(simulation: Simulation) -> None:
    """Each number is in one window, or was late once; no window came to something twice."""
    windows: dict[str, list[int]] = {}
    ends: Counter[tuple[str, str]] = Counter()
    for data in _emitted(simulation, "summed"):
        ends[data["page"], data["end"]] += 1
        windows.setdefault(data["page"], []).extend(data["numbers"])
    late = Counter(data["page"] for data in _emitted(simulation, "missed"))
    for data in _emitted(simulation, "missed"):
        windows.setdefault(data["page"], []).append(data["number"])
    states = simulation.server.tables.group("state", (GROUPS["echoes"], "sum")).values()
    kept = {row["key"]: json.loads(row["data"]) for row in states}
    for page, order in log_order(simulation, "echoes").items():
        if kept[page]["open"]:
            raise Violation("I1 windows close", f"{page} has open windows: {kept[page]['open']}")
        _check_all(page, order, windows.get(page, []))
        if simulation.restores:  # what a lost future has emitted stays in the log
            continue
        _check_once(page, windows.get(page, []))
        if late[page] != kept[page]["late"]:
            raise Violation("I2 late once", f"{page} counts {kept[page]['late']} late numbers of {late[page]}")
        if twice := [end for (of, end), times in ends.items() if of == page and times > 1]:
            raise Violation("I2 windows close once", f"the windows of {page} that ended at {twice} closed twice")


def _emitted(simulation: Simulation, type_: str) -> list[Any]:
    """Return the data of the emits of a type, each once."""
    found: dict[str, Any] = {}
    for partition in simulation.broker.topics["echoes"]:
        for record in partition.places:
            if record is not None:
                envelope, value = decode_record(record)
                if envelope.type == type_:
                    found.setdefault(envelope.id, json.loads(value))
    return list(found.values())


def _check_told(simulation: Simulation) -> None:
    """Each number was told, with one key, in order, and its answer left once."""
    firsts: dict[str, list[int]] = {}
    keys: dict[tuple[str, int], set[str]] = {}
    for call in simulation.world.outside.calls:
        keys.setdefault((call.page, call.number), set()).add(call.key)
        if call.number not in firsts.setdefault(call.page, []):
            firsts[call.page].append(call.number)
    told: dict[str, list[int]] = {}
    for data in _emitted(simulation, "told"):
        told.setdefault(data["page"], []).append(data["number"])
    if several := [place for place, used in keys.items() if len(used) > 1]:
        raise Violation("I8 one key", f"{several} were told with several keys")
    if len({key for used in keys.values() for key in used}) != len(keys):
        raise Violation("I8 one key", "two numbers were told with the same key")
    for page, order in log_order(simulation, "echoes").items():
        _check_all(page, order, told.get(page, []))
        _check_once(page, told.get(page, []))
        if not simulation.restores:
            check_order(f"calls of {page}", firsts.get(page, []), order)


def check_expiry(simulation: Simulation, transaction: Transaction) -> None:
    """Refuse a state that is forgotten while it lives, and one that goes on behind its end. Raises: Violation."""
    now = simulation.server.now()
    for (table, key), row in transaction.written.items():
        if table != "state" or row is None or key[1] != "recent":
            continue
        before = simulation.server.tables.get(table, key)
        known = json.loads(before["data"])["numbers"] if before is not None else []
        numbers = json.loads(row["data"])["numbers"]
        goes_on = numbers[: len(known)] == known
        if before is not None and not goes_on and before["expires_at"] > now:
            raise Violation("I1 a state lives until its end", f"{key[2]} had {known}, and has {numbers}")
        if before is not None and goes_on and before["expires_at"] + EXPIRED_SECONDS < now:
            raise Violation("I2 a state ends", f"{key[2]} goes on with {known}, which has expired")
        added = numbers[len(known) :] if goes_on else numbers
        heard = simulation.history.heard.get(key[2], [])
        again = [number for number in added if number in heard]
        if again and not simulation.restores:
            raise Violation("I2 applied once", f"echoes of {key[2]} has {again} again")
