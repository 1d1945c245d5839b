"""What is done to a run: each kind of fault is a function that returns when the fault itself is over.

| kinds | in |
| --- | --- |
| kill, leave, freeze, and the same at a named crash point | `processes.py` |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from tests.crash.faults.processes import die_at_point, freeze, freeze_at_point, kill
from tests.crash.history import Fault
from tests.crash.machine import Machine
from tests.crash.plan import Step

FAULTS: Mapping[str, Callable[[Machine, Step, Fault], Awaitable[None]]] = {
    "kill": kill,
    "die at a point": die_at_point,
    "freeze": freeze,
    "freeze at a point": freeze_at_point,
}
