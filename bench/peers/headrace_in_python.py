"""The service that `SERVICE` names, without the extension in C, in this process alone."""

from __future__ import annotations

import importlib
import os
from typing import Any

from headrace.engine import plain
from headrace.log import kafka_records, sizes

users: list[Any] = [plain, kafka_records, sizes]
for module in users:
    assert hasattr(module, "speedups")  # else it is used in another place by now
    module.speedups = None

app = importlib.import_module(os.environ["SERVICE"]).app
