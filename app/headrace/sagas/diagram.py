"""A saga as a Mermaid state diagram, drawn from what is declared."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.sagas.course import Course, Step


def diagram(course: Course) -> str:
    """Return the diagram, for `stateDiagram-v2`."""
    waited = [step for step in course.steps if step.done is not None]
    started_by = course.started_by.type if course.started_by is not None else "?"
    lines = ["stateDiagram-v2", f"    [*] --> {waited[0].name if waited else 'completed'}: {started_by}"]
    undos: list[Step] = []
    """What a failure of the current step goes through, the last one first: parts of the step itself may be done."""
    for step, following in zip(waited, [*(each.name for each in waited[1:]), "completed"], strict=True):
        assert step.done is not None
        lines.append(f"    {step.name} --> {following}: {step.done.type}")
        if step.undo is not None:
            undos.insert(0, step)
        after = f"undo_{undos[0].name}" if undos else "compensated"
        lines += [f"    {step.name} --> {after}: {why}" for why in _failures(course, step)]
    for step, before in zip(undos, [*(f"undo_{each.name}" for each in undos[1:]), "compensated"], strict=True):
        reply = f": {step.undone.type}" if step.undone is not None else ""
        lines.append(f"    undo_{step.name} --> {before}{reply}")
    return "\n".join([*lines, "    completed --> [*]", "    compensated --> [*]"])


def _failures(course: Course, step: Step) -> list[str]:
    """Return what ends the saga while it waits for the step."""
    found = [step.failed.type] if step.failed is not None else []
    found += [f"after {step.seconds:g} s"] if step.seconds is not None else []
    return found + [each.type for each in course.abandoned_by if each is not None]
