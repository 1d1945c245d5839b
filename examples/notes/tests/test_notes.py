"""Notes over HTTP, and the index that follows them."""

import pytest

from headrace.testing import BlockingService, Handlers, assert_exactly_once
from notes.events import NoteDeleted, NoteWritten
from notes.service import app


def found(service: BlockingService, word: str) -> list[int]:
    service.quiet()
    return [note["id"] for note in service.http.get("/notes", params={"word": word}).json()]


def test_note_is_written_read_and_found(service: BlockingService) -> None:
    answer = service.http.post("/notes", json={"text": "Buy milk and Milk"})
    assert (answer.status_code, answer.json()) == (201, {"id": 1, "text": "Buy milk and Milk"})
    assert service.http.get("/notes/1").json()["text"] == "Buy milk and Milk"
    assert found(service, "milk") == [1]
    assert service.published(NoteWritten) == [NoteWritten(note=1, text="Buy milk and Milk")]


def test_changed_note_is_found_by_its_new_words(service: BlockingService) -> None:
    service.http.post("/notes", json={"text": "buy milk"})
    assert service.http.put("/notes/1", json={"text": "buy bread"}).status_code == 200
    assert (found(service, "milk"), found(service, "bread")) == ([], [1])


def test_deleted_note_is_found_no_more(service: BlockingService) -> None:
    service.http.post("/notes", json={"text": "buy milk"})
    assert service.http.delete("/notes/1").status_code == 204
    assert found(service, "milk") == []
    assert service.published(NoteDeleted) == [NoteDeleted(note=1)]
    assert service.fetch("select * from word") == []


@pytest.mark.parametrize("method", ["get", "delete"])
def test_note_that_is_not_there_publishes_nothing(method: str, service: BlockingService) -> None:
    assert service.http.request(method, "/notes/7").status_code == 404
    service.quiet()
    assert service.published(NoteDeleted) == []


def test_index_is_kept_by_the_handlers(handlers: Handlers) -> None:
    """The same handlers without the service, on a database of their own."""
    assert handlers.when(NoteWritten(note=1, text="a a b")).fate == "applied"
    assert handlers.when(NoteWritten(note=1, text="c")).fate == "applied"
    assert handlers.when(NoteDeleted(note=1)).fate == "applied"


def test_index_is_exactly_once(headrace_database: str) -> None:
    """Its rows, whatever is rolled back and run again."""
    written = [NoteWritten(note=note, text=text) for text in ("buy milk", "buy bread") for note in (1, 2)]
    assert_exactly_once(app, [*written, NoteDeleted(note=1)], runs=10, database=headrace_database)
