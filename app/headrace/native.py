"""The part of the hot path that is written in C, if it is installed: `_speedups.c`.

To read and decode events is a third of what they cost in a worker's memory with it, and half without. Each function of
it has a twin in Python, which is used where it is missing: where no wheel fits, and pip found no compiler.
"""

from __future__ import annotations

from types import ModuleType

speedups: ModuleType | None
try:
    from headrace import _speedups
except ImportError:
    speedups = None
else:
    speedups = _speedups
