"""Why a state did not come back from its JSON, as the end of a sentence. Types are named, values are not."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from pydantic import ValidationError

from headrace.fields import INFINITE, parts_of


def first_difference(value: Any, read: Any, path: str = "") -> str | None:
    """Name the first part that came back as something else; None if nothing differs."""
    where = path or "it"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} {INFINITE}"
    if value == read:
        return None
    if type(value) is not type(read):
        return (
            f"{where} is a {type(value).__name__} and comes back as a {type(read).__name__}; "
            "assign what the field's type says, or name the class in the field's type"
        )
    is_ordered = not isinstance(value, (set, frozenset))
    parts, others = (parts_of(value), parts_of(read)) if is_ordered else ({}, {})
    for name in sorted(parts.keys() & others.keys(), key=str):
        found = first_difference(parts[name], others[name], f"{path}.{name}" if path else str(name))
        if found is not None:
            return found
    missing = sorted(map(str, parts.keys() ^ others.keys()))
    if missing:
        return f"{f'{path}.' if path else ''}{missing[0]} is not stored; make it a field without exclude"
    return f"{where} comes back as another {type(value).__name__}; let the class compare by value (no eq=False)"


def lost_bound(value: Any, read: Any, path: str = "") -> str | None:
    """Name the first deque that came back without its maxlen, which == does not see; None if there is none."""
    if isinstance(value, deque) and isinstance(read, deque) and value.maxlen != read.maxlen:
        return path
    if isinstance(value, (set, frozenset)):
        return None
    others = parts_of(read)
    for name, part in parts_of(value).items():
        if (found := lost_bound(part, others.get(name), f"{path}.{name}" if path else str(name))) is not None:
            return found
    return None


def faults_of(error: Exception) -> str:
    """Return what a decoder found wrong, without the values."""
    if not isinstance(error, ValidationError):
        return str(error)
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    location = ".".join(map(str, fault["loc"]))
    return f"{location}: {fault['msg']}" if location else fault["msg"]
