"""The files of a folder of schemas."""

from __future__ import annotations

from pathlib import Path

from headrace import Event
from headrace.event import event_type_of
from headrace.schemas.snapshot import declared, read, write


def test_type_with_slashes_has_a_file_of_its_own(tmp_path: Path) -> None:
    class Moved(Event, type="../com/example/moved", topic="doors"):
        door: str

    moved = event_type_of(Moved)
    assert moved is not None
    folder = tmp_path / "schemas"
    assert write(folder, [declared(moved)]) == ["..%2Fcom%2Fexample%2Fmoved.v1.json"]
    assert read(folder) == [declared(moved)]
    assert [file.name for file in tmp_path.iterdir()] == ["schemas"]
