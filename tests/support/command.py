"""The command line as a user calls it: a process of its own, with nothing set but what the test says."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Said(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str


async def headrace(
    folder: Path, *arguments: str, settings: Mapping[str, str] | None = None, answer: str = "", seconds: float = 60
) -> Said:
    """Run `headrace ARGUMENT...` in the folder and return its exit code and output; `answer` is typed in."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")} | {
        "PYTHONPATH": f"{ROOT / 'app'}",
        "NO_COLOR": "1",
        **(settings or {}),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace",
        *arguments,
        env=environment,
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(answer.encode()), seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())
