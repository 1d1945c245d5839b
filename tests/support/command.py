"""The command line as a user calls it: a process of its own, with nothing set but what the test says."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.process import ROOT, start_headrace


class Said(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str


async def headrace(
    folder: Path,
    *arguments: str,
    settings: Mapping[str, str] | None = None,
    answer: str = "",
    seconds: float = 60,
    is_fork: bool = True,
) -> Said:
    """Run `headrace ARGUMENT...` in the folder and return its exit code and output; `answer` is typed in."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")} | {
        "PYTHONPATH": f"{ROOT / 'app'}",
        "NO_COLOR": "1",
        **(settings or {}),
    }
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as typed:
        typed.write(answer.encode())
        typed.seek(0)
        process = await start_headrace(arguments, environment, folder, out, err, typed, is_fork=is_fork)
        try:
            code = await asyncio.wait_for(process.wait(), seconds)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()
        out.seek(0)
        err.seek(0)
        return Said(code, out.read().decode(), err.read().decode())
