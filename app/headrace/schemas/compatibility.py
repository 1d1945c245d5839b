"""Tells whether whatever an old JSON Schema accepts is accepted by a new one. Pure.

It knows the schemas that Pydantic and msgspec make. A keyword that it cannot compare is a fault if it has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]

LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
OPAQUE = ("pattern", "format", "multipleOf", "uniqueItems", "contentEncoding", "propertyNames", "not", "if", "contains")
"""Keywords that are compared as they are: one that is new, or another than before, may refuse what was accepted."""
DEEPEST = 40


def faults(old: Schema, new: Schema) -> list[str]:
    """Return what the new schema may refuse of what the old one accepts, a sentence each; empty if it is nothing."""
    return list(dict.fromkeys(_Comparison(old, new).faults(old, new, "", 0)))


class _Comparison:
    """Two documents, whose references are looked up in each."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old.get("$defs", {})
        self._new = new.get("$defs", {})

    def faults(self, old: Any, new: Any, where: str, depth: int) -> Iterator[str]:
        """Yield the faults of one place."""
        if new is True or new == {} or old is False or depth > DEEPEST:
            return
        olds, news = _branches(old, self._old), _branches(new, self._new)
        for each in olds:
            if len(news) == 1:
                yield from self._of_branch(each, news[0], where, depth)
            elif not any(_is_empty(self._of_branch(each, other, where, depth)) for other in news):
                yield f"{where or 'the event'}: {_shown(each)} fits none of {', '.join(map(_shown, news))}"

    def _of_branch(self, old: Schema, new: Schema, where: str, depth: int) -> Iterator[str]:
        place = where or "the event"
        types, accepted = _types(old), _types(new)
        if accepted and not (types and all(_is_accepted(each, accepted) for each in types)):
            yield f"{place}: it was {_names(types)} and is {_names(accepted)}"
            return
        yield from self._of_values(old, new, place)
        yield from self._of_bounds(old, new, place)
        if "properties" in new or "properties" in old or "additionalProperties" in new:
            yield from self._of_object(old, new, where, depth)
        yield from self._of_array(old, new, where, depth)

    def _of_values(self, old: Schema, new: Schema, place: str) -> Iterator[str]:
        values, accepted = _values(old), _values(new)
        if accepted is None:
            return
        if values is None:
            yield f"{place}: only {_list(accepted)} are accepted from now on"
        elif gone := [each for each in values if each not in accepted]:
            yield f"{place}: {_list(gone)} {'is' if len(gone) == 1 else 'are'} not accepted any more"

    def _of_bounds(self, old: Schema, new: Schema, place: str) -> Iterator[str]:
        for names, sign in ((LOWER, 1), (UPPER, -1)):
            for name in names:
                if name in new and (name not in old or sign * new[name] > sign * old[name]):
                    yield f"{place}: {name} was {old.get(name, 'not set')} and is {new[name]}"
        for name in OPAQUE:
            if name in new and new[name] != old.get(name):
                yield f"{place}: {name} was {old.get(name, 'not set')} and is {new[name]}"

    def _of_object(self, old: Schema, new: Schema, where: str, depth: int) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        had = set(old.get("required", ()))
        for name in new.get("required", ()):
            if name not in had:
                is_new = name not in before
                yield f"{_at(where, name)}: it is {'new and' if is_new else ''} required; give it a default".replace(
                    "  ", " "
                )
        rest = new.get("additionalProperties", True)
        for name, schema in before.items():
            if name in after:
                yield from self.faults(schema, after[name], _at(where, name), depth + 1)
            elif rest is False:
                yield f"{_at(where, name)}: it is gone, and the class refuses what it does not know"
            else:
                yield from self.faults(schema, rest, _at(where, name), depth + 1)
        if "properties" not in old and "properties" not in new:
            values = old.get("additionalProperties", True)
            yield from self.faults(values, rest, _at(where, "*"), depth + 1)

    def _of_array(self, old: Schema, new: Schema, where: str, depth: int) -> Iterator[str]:
        olds, news = old.get("prefixItems", ()), new.get("prefixItems", ())
        for index, schema in enumerate(news):
            before = olds[index] if index < len(olds) else old.get("items", True)
            yield from self.faults(before, schema, f"{where}[{index}]", depth + 1)
        if "items" in new:
            for before in [*olds[len(news) :], old.get("items", not olds)]:
                yield from self.faults(before, new["items"], f"{where}[]", depth + 1)


def _branches(schema: Any, definitions: Schema) -> list[Schema]:
    """Return what a schema is one of, with references followed."""
    if schema is True:
        return [{}]
    if schema is False:
        return []
    if "$ref" in schema:
        return _branches(definitions.get(str(schema["$ref"]).rpartition("/")[2], {}), definitions)
    for name in ("anyOf", "oneOf"):
        if name in schema:
            return [branch for each in schema[name] for branch in _branches(each, definitions)]
    if len(schema.get("allOf", ())) == 1:
        return _branches(schema["allOf"][0], definitions)
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": each} for each in schema["type"]]
    return [schema]


def _types(schema: Schema) -> list[str]:
    kind = schema.get("type")
    if kind is not None:
        return [kind] if isinstance(kind, str) else list(kind)
    values = _values(schema)
    return sorted({_type_of(each) for each in values}) if values else []


def _is_accepted(kind: str, accepted: Sequence[str]) -> bool:
    return kind in accepted or (kind == "integer" and "number" in accepted)


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return names.get(type(value), "object" if isinstance(value, Mapping) else "array")


def _is_empty(found: Iterator[str]) -> bool:
    return next(found, None) is None


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _names(types: Sequence[str]) -> str:
    return " or ".join(types) or "anything"


def _list(values: Sequence[Any]) -> str:
    return ", ".join(map(repr, values))


def _shown(schema: Schema) -> str:
    values = _values(schema)
    return _list(values) if values is not None else str(schema.get("title") or _names(_types(schema)))
