"""Changes of rows are folded without changing what they come to, one after the other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from headrace.errors import ConfigurationError
from headrace.tables.table import TableType
from headrace.tables.writes import TableWriter, waves


class Stock(BaseModel):
    sku: str
    sold: int = 0
    left: int = 7
    name: str | None = None


TABLE = TableType(Stock, "stock", "sku", [], "test")
Rows = dict[Any, dict[str, Any]]

changes = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.just("change"), st.sampled_from(["sold", "left"]), st.integers(0, 9)),
    st.tuples(st.just("add"), st.sampled_from(["sold", "left"]), st.integers(0, 9)),
    st.tuples(st.just("delete"), st.just(0), st.just(0)),
)


def writer() -> TableWriter:
    return TableWriter(TABLE, lambda: None)


def note(rows: TableWriter, key: str, change: Any) -> None:
    """Do one of the drawn changes to a row."""
    match change:
        case "put", sold, left:
            rows.put(Stock(sku=key, sold=sold, left=left))
        case "change", column, value:
            rows.change(key, **{column: value})
        case "add", column, amount:
            rows.add(key, **{column: amount})
        case _:
            rows.delete(key)


def statements(writes: Any, rows: Rows) -> None:
    """Do to rows in memory what the statements of some changes do to those of Postgres."""
    one = writer()
    one.writes = [(None, write) for write in writes]
    one.apply(rows)


@given(st.lists(st.tuples(st.sampled_from("ab"), changes), max_size=12), st.booleans())
def test_folded_changes_come_to_the_same_rows(drawn: list[Any], is_there: bool) -> None:
    one_by_one: Rows = {("a",): {"sku": "a", "sold": 1, "left": 2, "name": "x"}} if is_there else {}
    folded = {key: dict(row) for key, row in one_by_one.items()}
    rows = writer()
    for key, change in drawn:
        note(rows, key, change)
    for wave in waves(write for _, write in rows.writes):
        assert len({write.key for write in wave}) == len(wave), "one change of a key at most"
        statements(wave, folded)
    rows.apply(one_by_one)
    assert folded == one_by_one


def test_changes_of_many_events_are_few() -> None:
    rows = writer()
    for number in range(100):
        rows.put(Stock(sku=f"sku-{number % 3}"))
        rows.add(f"sku-{number % 3}", sold=1)
        rows.change(f"sku-{number % 3}", name="n")
    ((first, *others),) = waves(write for _, write in rows.writes)
    assert len(others) == 2
    assert first.kind == "put"


def test_changes_of_one_event_are_taken_back() -> None:
    cause = "first"
    rows = TableWriter(TABLE, lambda: cause)
    rows.delete("a")
    cause = "second"
    rows.delete("b")
    rows.delete("c")
    rows.undo("second")
    assert [write.key for _, write in rows.writes] == [("a",)]


def test_wrong_changes_say_what_is_wrong() -> None:
    rows = writer()
    with pytest.raises(ConfigurationError, match=r"put\(\) takes a Stock, not a str"):
        rows.put("a")
    with pytest.raises(ConfigurationError, match="'colour' cannot be written; the columns are sold, left, name"):
        rows.change("a", colour="red")
    with pytest.raises(ConfigurationError, match="'sku' cannot be written"):
        rows.change("a", sku="b")
    with pytest.raises(ConfigurationError, match=r"add\(\) takes numbers, and 'name' is text"):
        rows.add("a", name="b")
    with pytest.raises(ConfigurationError, match=r"change\(\): name a column"):
        rows.change("a")
    with pytest.raises(ConfigurationError, match="a row of stock is named by sku: give 1"):
        rows.delete("a", "b")
    with pytest.raises(ValidationError):
        rows.change("a", sold="many")
    assert rows.writes == []
