"""Simulates seeds until a safety checker finds something: runs in the copy of the code that has the mistake."""

from __future__ import annotations

import json
import sys
import time

from tests.simulation.__main__ import quiet
from tests.simulation.plan import draw
from tests.simulation.simulation import simulate

LIVENESS = "I10"


def main(seconds: float) -> None:
    """Print what was found, as JSON."""
    quiet()
    began, seed, late = time.monotonic(), 0, 0
    found = None
    while time.monotonic() - began < seconds:
        violation = simulate(draw(seed)).violation
        if violation is not None and not violation.invariant.startswith(LIVENESS):
            found = {"invariant": violation.invariant, "text": violation.text}
            break
        late += violation is not None
        seed += 1
    print(json.dumps({"seed": seed, "seconds": time.monotonic() - began, "late": late, "found": found}))  # noqa: T201


if __name__ == "__main__":
    main(float(sys.argv[1]))
