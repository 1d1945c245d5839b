"""Which code is the team's own, and how an error looks that shows nothing else."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")

_PLATFORM = f"{Path(__file__).parents[1]}/"
_OTHERS = (sysconfig.get_paths()["stdlib"], "<", _PLATFORM)


def is_own_file(file: str) -> bool:
    """True for a file of the service: not of an installed package, of the language or of the platform."""
    is_installed = "/site-packages/" in file or "/dist-packages/" in file
    return bool(file) and not is_installed and not file.startswith(_OTHERS)


def shown(work: Callable[[], T]) -> T:
    """Return what the work returns; an error of the team's code begins where their code begins."""
    __tracebackhide__ = True  # pytest leaves this line out
    try:
        return work()
    except BaseException as error:
        found = _first_own(error.__traceback__)
        if found is None:
            raise
        raise error.with_traceback(found)  # noqa: B904 - it is the same error


def _first_own(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and not is_own_file(traceback.tb_frame.f_code.co_filename):
        traceback = traceback.tb_next
    return traceback
