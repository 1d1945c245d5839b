"""The part in C, for tests that need it: without it they fail, unless `HEADRACE_TEST_PURE` says that it is missing."""

from __future__ import annotations

import os

import pytest

from headrace.native import speedups

LACKS_C = speedups is None and bool(os.environ.get("HEADRACE_TEST_PURE"))
needs_c = pytest.mark.skipif(LACKS_C, reason="HEADRACE_TEST_PURE: the part in C is not installed")
IN_C = pytest.param(True, marks=needs_c, id="in C")
IN_PYTHON = pytest.param(False, id="in Python")
