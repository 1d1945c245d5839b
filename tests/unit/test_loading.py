"""`MODULE:APP` is found, and the platform behind it, however the application enters its lifespan."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI

from headrace import Headrace
from headrace.errors import ConfigurationError
from headrace.loading import find_platform, load_app

named_in_a_module = Headrace("module")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_application_is_imported_from_the_working_folder(folder: Path) -> None:
    (folder / "aqueduct").mkdir()
    (folder / "aqueduct/arch.py").write_text("from fastapi import FastAPI\nkeystone = FastAPI(title='arch')\n")
    assert load_app("aqueduct.arch:keystone").title == "arch"


@pytest.mark.parametrize(
    "target", ["", ":", "arch", "arch:", ":app", "./arch.py:app", "a b:app", ".arch:app", "arch:a.b"]
)
def test_what_is_no_target_is_told_how_to_write_one(folder: Path, target: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_app(target)
    assert str(refused.value) == (
        f"{target!r} does not name an application; write MODULE:APP, such as shop.service:app."
    )


@pytest.mark.parametrize(
    ("target", "missing"), [("arhc:app", "arhc"), ("arch.x.y:app", "arch.x"), ("sub.y:app", "sub.y")]
)
def test_missing_module_is_named(folder: Path, target: str, missing: str) -> None:
    (folder / "arch").mkdir()
    (folder / "arch/__init__.py").touch()
    (folder / "sub").mkdir()
    with pytest.raises(ConfigurationError, match=f"there is no module '{missing}' to import '{target}' from"):
        load_app(target)


@pytest.mark.parametrize(
    ("attribute", "found"),
    [
        ("ap", "ap does not exist in arch."),
        ("number", "number is a int, not a FastAPI application in arch."),
        ("make", "make is a function, not a FastAPI application in arch."),
    ],
)
def test_what_is_no_application_is_named(folder: Path, attribute: str, found: str) -> None:
    (folder / "arch.py").write_text("number = 5\ndef make(): ...\n")
    with pytest.raises(ConfigurationError) as refused:
        load_app(f"arch:{attribute}")
    assert str(refused.value) == f"'arch:{attribute}': {found}"


@pytest.mark.parametrize("error", ["import nothing_of_the_kind", "1 / 0", "raise SystemExit(3)"])
def test_errors_of_the_module_itself_pass_as_they_are(folder: Path, error: str) -> None:
    (folder / "arch.py").write_text(error)
    with pytest.raises((ModuleNotFoundError, ZeroDivisionError, SystemExit)):
        load_app("arch:app")


def test_platform_is_found_by_its_lifespan() -> None:
    events = Headrace("shop")
    assert find_platform(FastAPI(lifespan=events.lifespan)) is events


def test_platform_is_found_behind_included_routers() -> None:
    events = Headrace("shop")
    app = FastAPI(lifespan=events.lifespan)
    app.include_router(events.router)
    app.include_router(APIRouter(), prefix="/more")
    assert find_platform(app) is events


def test_platform_is_found_in_a_lifespan_that_names_it() -> None:
    events = Headrace("shop")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(events.lifespan(app))
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(events.router)
    assert find_platform(app) is events


def test_platform_is_found_in_a_lifespan_that_names_it_globally() -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with named_in_a_module.lifespan(app):
            yield

    assert find_platform(FastAPI(lifespan=lifespan)) is named_in_a_module


def test_platform_is_found_where_the_application_says_so() -> None:
    events = Headrace("shop")
    app = FastAPI(lifespan=partial(lambda platform, app: platform.lifespan(app), events))
    app.state.headrace = events
    assert find_platform(app) is events


def test_application_without_a_platform_is_told_what_to_write() -> None:
    events = Headrace("shop")
    app = FastAPI()
    app.include_router(events.router)
    with pytest.raises(
        ConfigurationError, match=r"does not run a Headrace; write FastAPI\(lifespan=events\.lifespan\)"
    ):
        find_platform(app)
