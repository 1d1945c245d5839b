"""The application: `headrace run notes.service:app`."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from notes import index
from notes.database import Db, lifespan
from notes.events import NoteDeleted, NoteWritten, events
from notes.models import Note, Word

__all__ = ["app", "index"]

app = FastAPI(title="notes", lifespan=lifespan)
app.include_router(events.router, prefix="/platform")


class Text(BaseModel):
    """What a note says."""

    text: str


class NoteShown(Text):
    """A note, as it is answered."""

    model_config = ConfigDict(from_attributes=True)
    id: int


@app.post("/notes", status_code=201)
async def write_note(body: Text, db: Db) -> NoteShown:
    """Write a note. The event leaves if, and only if, the note is committed."""
    note = Note(text=body.text)
    db.add(note)
    await db.flush()  # for its id
    events.outbox(db).publish(NoteWritten(note=note.id, text=note.text))
    return NoteShown.model_validate(note)


@app.get("/notes/{number}")
async def read_note(number: int, db: Db) -> NoteShown:
    """Read a note."""
    return NoteShown.model_validate(await _find(db, number))


@app.put("/notes/{number}")
async def change_note(number: int, body: Text, db: Db) -> NoteShown:
    """Give a note another text."""
    note = await _find(db, number)
    note.text = body.text
    events.outbox(db).publish(NoteWritten(note=number, text=note.text))
    return NoteShown.model_validate(note)


@app.delete("/notes/{number}", status_code=204)
async def delete_note(number: int, db: Db) -> None:
    """Delete a note."""
    await db.delete(await _find(db, number))
    events.outbox(db).publish(NoteDeleted(note=number))


@app.get("/notes")
async def find_notes(word: str, db: Db) -> list[NoteShown]:
    """Find notes by a word; a note that was just written is found some milliseconds later."""
    ids = select(Word.note_id).where(Word.word == word.lower())
    found = await db.scalars(select(Note).where(Note.id.in_(ids)).order_by(Note.id))
    return [NoteShown.model_validate(note) for note in found]


async def _find(db: Db, number: int) -> Note:
    note = await db.get(Note, number)
    if note is None:
        raise HTTPException(404, f"there is no note {number}")
    return note
