"""What handlers can reach outside of their arguments: globals, closures, attributes of a team's own objects.

Nothing of it is undone if a batch is rolled back, and nothing of it survives the process. So it is put back to where it
was wherever a trial lets a process die, and compared where it does not.
"""

from __future__ import annotations

import copy
import inspect
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import msgspec
from pydantic import BaseModel

from headrace.testing.own import is_own_file

Getter = Callable[[], Any]
Setter = Callable[[Any], None]

MOST_DEPTH = 20
_MAPPINGS = (dict, defaultdict, Counter, OrderedDict)
_CONTAINERS = (*_MAPPINGS, list, set, deque, bytearray)
_DATA = (bool, int, float, str, bytes, tuple, frozenset, *_CONTAINERS)


class Place:
    """One thing that can be reached, by its name: `wallets.totals`."""

    def __init__(self, name: str, get: Getter, put: Setter) -> None:
        self.name = name
        self.get = get
        self.put = put


class Outside:
    """All places that some functions reach, and what they held when this was made."""

    def __init__(self, functions: Iterable[Callable[..., Any]]) -> None:
        self.places: dict[str, Place] = {}
        self.scopes: list[dict[str, Any]] = []
        """The globals of the functions that were found."""
        self._caches: list[Any] = []
        self._seen: set[int] = set()
        for function in functions:
            self._walk(function)
        self.first = self.look()
        """What was held at the start."""

    def look(self) -> dict[str, Any]:
        """Return copies of what the places hold."""
        held: dict[str, Any] = {}
        for name, place in self.places.items():
            with suppress(AttributeError, KeyError, ValueError):  # it is gone
                held[name] = _copied(place.get())
        return held

    def restore(self) -> None:
        """Put back what has changed, as in a process that has just started; the rest stays the same object."""
        for name in differences(self.first, self.look()):
            _put_back(self.places[name], _copied(self.first[name]))
        for cached in self._caches:
            cached.cache_clear()

    def _walk(self, value: Any) -> None:
        """Find what a function, a class or an object of the team's own reaches."""
        if hasattr(value, "cache_clear") and hasattr(value, "__wrapped__"):
            self._caches.append(value)
        if isinstance(value, types.MethodType):
            self._walk(value.__self__)
        value = inspect.unwrap(value) if callable(value) and not inspect.isclass(value) else value
        value = getattr(value, "__func__", value)
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, types.FunctionType):
            if is_own_file(value.__code__.co_filename):
                self._walk_function(value)
        elif inspect.isclass(value):
            if _is_own(value):
                for name, member in list(vars(value).items()):
                    if not name.startswith(("__", "_abc_", "model_")):
                        self._note(f"{value.__qualname__}.{name}", member, *_attribute(value, name))
        elif _is_own(type(value)) and not isinstance(value, (BaseModel, msgspec.Struct)):
            self._walk(type(value))

    def _walk_function(self, function: types.FunctionType) -> None:
        if not any(function.__globals__ is scope for scope in self.scopes):
            self.scopes.append(function.__globals__)
        module = function.__module__.rpartition(".")[2]
        names = set(_names(function.__code__))
        for name in sorted(names & function.__globals__.keys()):
            held = function.__globals__[name]
            if isinstance(held, types.ModuleType):
                if is_own_file(getattr(held, "__file__", None) or ""):
                    for inner in sorted(names & vars(held).keys()):
                        self._note(f"{held.__name__}.{inner}", vars(held)[inner], *_item(vars(held), inner))
                continue
            self._note(f"{module}.{name}", held, *_item(function.__globals__, name))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                self._note(name, cell.cell_contents, *_attribute(cell, "cell_contents"))
            except ValueError:  # an empty cell
                continue

    def _note(self, name: str, value: Any, get: Getter, put: Setter) -> None:
        if _is_data(value):
            self.places.setdefault(name, Place(name, get, put))
            if _is_own(type(value)):
                self._walk(type(value))
        else:
            self._walk(value)


def _copied(value: Any, depth: int = 0) -> Any:
    """Return a copy of data; objects of others (a lock, a client, a compiled pattern) stay the ones that they are."""
    kind = type(value)
    if depth > MOST_DEPTH:
        return value
    if kind in _MAPPINGS:
        made = copy.copy(value)
        for key, each in value.items():
            made[key] = _copied(each, depth + 1)
        return made
    if kind in (list, tuple):
        return kind(_copied(each, depth + 1) for each in value)
    if kind is deque:
        return deque((_copied(each, depth + 1) for each in value), value.maxlen)
    if kind in (set, bytearray) or _is_iterator(value):
        return copy.copy(value)
    if isinstance(value, (BaseModel, msgspec.Struct)):
        return copy.deepcopy(value)
    if _is_own(kind) and hasattr(value, "__dict__"):
        made = copy.copy(value)
        made.__dict__.update((name, _copied(each, depth + 1)) for name, each in vars(value).items())
        return made
    return value


def differences(first: dict[str, Any], second: dict[str, Any]) -> Iterator[str]:
    """Yield the names of places that hold something else."""
    for name in first:
        if name in second and not _is_same(first[name], second[name]):
            yield name


def _is_same(first: Any, second: Any, depth: int = 0) -> bool:
    """Compare two values; objects that compare by identity are compared by what they hold."""
    if type(first) is not type(second):
        return False
    with suppress(Exception):  # an __eq__ of the team's own
        if first == second:
            return True
    if depth > MOST_DEPTH:
        return True
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_is_same(first[key], second[key], depth + 1) for key in first)
    if isinstance(first, (list, tuple, deque)):
        pairs = zip(first, second, strict=False)
        return len(first) == len(second) and all(_is_same(one, other, depth + 1) for one, other in pairs)
    if isinstance(first, _DATA):
        return False
    return _is_same(getattr(first, "__dict__", None), getattr(second, "__dict__", None), depth + 1)


def _put_back(place: Place, value: Any) -> None:
    """Change the object itself if it is a container, since others may hold it as well."""
    held = place.get()
    if type(held) is type(value) and isinstance(held, (dict, set)):
        held.clear()
        held.update(value)
    elif type(held) is type(value) and isinstance(held, (list, deque, bytearray)):
        held.clear()
        held.extend(value)
    elif type(held) is type(value) and hasattr(held, "__dict__"):
        held.__dict__.clear()
        held.__dict__.update(vars(value))
    else:
        place.put(value)


def _is_data(value: Any) -> bool:
    """True for plain values, containers, and objects of the team's own classes; not for a library's kinds of them."""
    if value is None or type(value) in _DATA:
        return True
    return not callable(value) and not inspect.isclass(value) and (_is_own(type(value)) or _is_iterator(value))


def _is_iterator(value: Any) -> bool:
    return type(value).__module__ == "itertools"


def _is_own(kind: type[Any]) -> bool:
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__module__ == "__main__"
    try:
        return is_own_file(inspect.getfile(kind))
    except (TypeError, OSError):
        return False


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _names(each)


def _item(scope: dict[str, Any], name: str) -> tuple[Getter, Setter]:
    return lambda: scope[name], lambda value: scope.__setitem__(name, value)


def _attribute(owner: Any, name: str) -> tuple[Getter, Setter]:
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)
