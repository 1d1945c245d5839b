"""What happens to notes, and the platform it happens on."""

from __future__ import annotations

from headrace import Event, Headrace

events = Headrace("notes")


class NoteWritten(Event, type="note.written", topic="notes", key="note", internal=True):
    """A note is new, or has another text."""

    note: int
    text: str


class NoteDeleted(Event, type="note.deleted", topic="notes", key="note", internal=True):
    """A note is gone."""

    note: int
