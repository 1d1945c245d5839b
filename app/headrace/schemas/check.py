"""What a change of the declared types does to events of the log: nothing, or a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.event import EventType
from headrace.schemas.compatibility import faults
from headrace.schemas.snapshot import Kept, declared


def check(types: Mapping[str, EventType], kept: Sequence[Kept]) -> list[str]:
    """Return the changes that events of the log do not survive, a sentence each."""
    wrong: list[str] = []
    for each in kept:
        event_type = types.get(each.type)
        if event_type is None:
            wrong.append(
                f"{each.type}: the type is not declared any more, and its events would become dead letters; declare it "
                f"again, or remove {each.file} once no log has such events."
            )
        else:
            wrong += _of_version(event_type, each)
    return wrong


def missing(types: Mapping[str, EventType], kept: Sequence[Kept]) -> list[str]:
    """Return the files that the folder has not, or not as the types are declared now."""
    known = {each.file: each for each in kept}
    now = [declared(types[name]) for name in sorted(types)]
    return [each.file for each in now if known.get(each.file) != each]


def _of_version(event_type: EventType, old: Kept) -> list[str]:
    now, name = declared(event_type), old.type
    if old.version > now.version:
        return [f"{name}: its version was {old.version} and is {now.version}; a version never goes back."]
    wrong = []
    if old.topic != now.topic:
        wrong.append(
            f"{name}: its topic was {old.topic!r} and is {now.topic!r}, and events on the old one would be read by "
            "nobody; declare another type for the new topic."
        )
    if old.key != now.key:
        wrong.append(
            f"{name}: its key was {old.key or 'subject, or id'} and is {now.key or 'subject, or id'}, so that events "
            "would be in another order and have other states; declare another type."
        )
    if any(version in event_type.upcasts for version in range(old.version, now.version)):
        return wrong  # what an upcaster makes of it, a test of the team's says
    found = faults(old.schema, now.schema)
    advice = (
        f"raise version= of {event_type.model.__name__} to {now.version + 1} and declare "
        f"@upcast({event_type.model.__name__}, version={now.version})"
        if old.version == now.version
        else f"declare @upcast({event_type.model.__name__}, version={now.version - 1})"
    )
    return wrong + [f"{name} v{old.version}: {fault}; or {advice}." for fault in found]
