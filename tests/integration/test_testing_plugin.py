"""The pytest plugin as a team meets it: pytest in a process of its own, in a folder of theirs.

All of it is one run: the tests that the guide shows, and those of a service with SQL and faults, which is written here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.pages import blocks, python_files, read

PAGES = ("docs/guide/testing.md", "docs/guide/proving.md")

WARNINGS = ("-W", "error", "-W", "ignore:Using `httpx` with")  # Starlette prefers a successor of httpx

BOOKS = """
from fastapi import FastAPI
from pydantic import BaseModel

from headrace import Event, Headrace, Outbox, State, Transaction

events = Headrace("books")
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)

class Sold(Event, type="book.sold", topic="books", key="isbn"):
    isbn: str
    copies: int = 1

class Count(BaseModel):
    sold: int = 0

class NoPaperError(Exception): ...

paper = [True]

@events.subscription("invoices", first_seconds=3600).on(Sold)
async def invoice(event: Sold, tx: Transaction) -> None:
    await tx.execute("insert into invoice values ($1)", event.isbn)
    if not paper[0]:
        raise NoPaperError(event.isbn)

@events.subscription("counting").on(Sold)
def count(event: Sold, count: State[Count]) -> None:
    count.sold += event.copies

@app.post("/sales/{isbn}")
async def sell(isbn: str, tx: Outbox) -> None:
    tx.emit(Sold(isbn=isbn))
"""

TEST_BOOKS = """
import asyncio
import os

import asyncpg
import pytest
from fastapi.testclient import TestClient

from books import Count, NoPaperError, Sold, app, events, paper
from headrace import Transaction
from headrace.errors import DecodeError
from headrace.log.ports import NewRecord
from headrace.testing import NotExactlyOnceError, assert_exactly_once, running

@pytest.fixture
def headrace_app():
    yield app
    paper[0] = True

def test_a_route_s_outbox_takes_effect(service):
    assert service.http.post("/sales/1").status_code == 200
    service.quiet()
    assert service.state(Count, "1") == Count(sold=1)
    assert [row["isbn"] for row in service.fetch("select isbn from invoice")] == ["1"]

def test_databases_are_of_one_test(service):
    assert service.fetch("select isbn from invoice") == []
    assert service.state(Count, "1") == Count()

def test_error_of_a_handler_is_raised_by_quiet(service):
    paper[0] = False
    service.publish(Sold(isbn="1"))
    with pytest.raises(NoPaperError, match="1") as caught:
        service.quiet()
    assert [entry.name for entry in caught.traceback if not entry.ishidden(caught)] == [
        "test_error_of_a_handler_is_raised_by_quiet", "invoice"
    ]

def test_address_of_the_database_is_known(service):
    assert service.fetch("select current_database()")[0][0] in service.platform.database_url

def test_allowed_error_is_tried_again_later(service):
    paper[0] = False
    service.publish(Sold(isbn="1"))
    service.quiet(allow=NoPaperError)
    assert service.fetch("select isbn from invoice") == []
    paper[0] = True
    service.move(hours=1)
    service.quiet()
    assert [row["isbn"] for row in service.fetch("select isbn from invoice")] == ["1"]

def test_record_that_is_no_event_is_raised_by_quiet(service):
    runtime = service.platform.runtime
    service.call(runtime.log.publish, [NewRecord("books", b"1", b"{", [])])
    with pytest.raises(DecodeError):
        service.quiet()

def test_sql_of_a_handler_runs_on_a_real_database(handlers, headrace_database):
    assert handlers.when(Sold(isbn="1"), subscription="invoices").fate == "applied"
    assert len(asyncio.run(rows_of(headrace_database))) == 1
    paper[0] = False
    with pytest.raises(NoPaperError):
        handlers.when(Sold(isbn="1"), subscription="invoices")
    assert len(asyncio.run(rows_of(headrace_database))) == 1

def test_handlers_with_sql_are_exactly_once(headrace_database):
    sold = [Sold(isbn=isbn, copies=copies) for copies in (1, 2) for isbn in ("1", "2")]
    assert_exactly_once(app, sold, database=headrace_database)
    assert asyncio.run(rows_of(headrace_database)) == [], "and nothing is left of it"

def test_row_that_a_rerun_makes_another_one_is_shown(headrace_database):
    @events.subscription("numbers").on(Sold)
    async def number(event: Sold, tx: Transaction) -> None:
        numbers.append(event.isbn)
        await tx.execute("insert into invoice values ($1)", f"{event.isbn} is number {len(numbers)}")
    try:
        with pytest.raises(NotExactlyOnceError) as caught:
            assert_exactly_once(app, [Sold(isbn="1"), Sold(isbn="2")], database=headrace_database)
    finally:
        del events.registry.subscriptions["numbers"]
    told = str(caught.value)
    assert "numbers.number is not exactly once: the rows of public.invoice differ." in told
    assert 'One after the other:  also {"isbn": "2 is number 1"}' in told
    assert 'As it happened here:  also {"isbn": "2 is number 2"}' in told
    assert "The handlers change test_books.numbers" in told

numbers = []

async def rows_of(address):
    connection = await asyncpg.connect(address)
    try:
        return await connection.fetch("select * from invoice")
    finally:
        await connection.close()

def test_asynchronous_test_runs_the_application():
    async def test():
        async with running(app) as service:
            assert (await service.http.post("/sales/1")).status_code == 200
            await service.quiet()
            assert await service.state(Count, "1") == Count(sold=1)
    asyncio.run(test())

def test_the_test_client_works_as_it_is():
    with TestClient(app) as client:
        assert client.post("/events/book.sold", json={"isbn": "1"}).status_code == 202

def test_settings_of_the_run_are_those_of_a_test():
    assert os.environ["HEADRACE_LOG"] == "memory"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run everything once, and return what pytest says."""
    folder = tmp_path_factory.mktemp("team")
    for page in PAGES:
        for name, code in python_files(page).items():
            (folder / f"{name}.py").write_text(code)
        for settings in blocks(read(page), "toml"):
            (folder / "pyproject.toml").write_text(settings)
    (folder / "books.py").write_text(BOOKS)
    (folder / "test_books.py").write_text(TEST_BOOKS)
    conftest = folder / "conftest.py"
    conftest.write_text(conftest.read_text().replace("(number int primary key)", "(isbn text)"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "PYTEST_"))}
    others = ("cacheprovider", "asyncio", "xdist", "faker", "hypothesispytest")
    plugins = [part for name in others for part in ("-p", f"no:{name}")]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *WARNINGS, *plugins, str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return ran.stdout + ran.stderr


def test_the_tests_of_the_guide_pass(run: str) -> None:
    said = [test for file in ("wallets", "service", "deliveries") for test in _passed(run, file)]
    assert len(said) == 7, run
    report = next(block for block in read(PAGES[1]).split("```\n") if "is not exactly once" in block)
    assert report.strip() in run, "the page shows what is printed"


def test_a_service_with_sql_and_faults_is_tested(run: str) -> None:
    wanted = re.findall(r"^def (test_\w+)", TEST_BOOKS, re.MULTILINE)
    assert _passed(run, "books") == wanted, run


def test_nothing_is_left_behind(run: str) -> None:
    """No warning of an open connection, loop or thread, and no server."""
    assert re.search(r"^=+ \d+ passed in [\d.]+s", run, re.MULTILINE), run


def _passed(run: str, file: str) -> list[str]:
    return re.findall(rf"^PASSED test_{file}\.py::(\w+)", run, re.MULTILINE)
