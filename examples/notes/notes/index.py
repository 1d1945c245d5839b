"""The index of words: kept by handlers, in the transaction of their batch."""

from __future__ import annotations

from sqlalchemy import delete

from headrace.sqlalchemy import BatchSession
from notes.events import NoteDeleted, NoteWritten, events
from notes.models import Word

index = events.subscription("index")


@index.on(NoteWritten)
async def index_note(event: NoteWritten, session: BatchSession) -> None:
    """Let the note be found by the words that it has now."""
    await session.execute(delete(Word).where(Word.note_id == event.note))
    session.add_all(Word(note_id=event.note, word=word) for word in sorted(set(event.text.lower().split())))


@index.on(NoteDeleted)
async def forget_note(event: NoteDeleted, session: BatchSession) -> None:
    """Let the note be found no more."""
    await session.execute(delete(Word).where(Word.note_id == event.note))
