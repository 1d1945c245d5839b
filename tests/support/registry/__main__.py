"""Fetch the tests' schema registry, before a test's time limit runs: `python -m tests.support.registry`."""

from __future__ import annotations

import sys

import pytest

from tests.support.registry.server import find_registry

if __name__ == "__main__":
    try:
        find_registry()
    except pytest.fail.Exception as missing:
        sys.exit(str(missing))
