"""What goes wrong in a command is one sentence if a person can do something about it, and a traceback if not."""

from __future__ import annotations

import asyncio
import io
import os
import sys

import asyncpg
import pytest

import headrace.cli
from headrace import __main__
from headrace.errors import ConfigurationError

LOST = asyncpg.InterfaceError("cannot call Transaction.__aexit__(): the underlying connection is closed")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigurationError("set it."), "headrace: set it.\n"),
        (LOST, "headrace: the connection to Postgres is gone: cannot call Transaction.__aexit__(): the underlying "),
        (asyncpg.AdminShutdownError("terminating connection"), "headrace: Postgres asks to try again: terminating "),
        (asyncpg.UntranslatableCharacterError("no \\u0000"), "headrace: Postgres refused the data: no \\u0000 "),
    ],
    ids=["a fault of ours", "lost connection", "server stops", "refused data"],
)
def test_fault_is_one_sentence(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(headrace.cli, "cli", _raises(error))
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith(said) and told.count("\n") == 1


def test_output_that_the_terminal_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", write_through=True))
    monkeypatch.setattr(headrace.cli, "cli", lambda prog_name: sys.stdout.write("größe"))
    __main__.main()
    assert written.getvalue() == b"gr\\xf6\\xdfe"


def test_load_that_is_cut_short_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def cut_short(_: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    monkeypatch.setattr(sys.modules["headrace.cli.load"], "_load", cut_short)
    monkeypatch.setattr(sys, "argv", ["headrace", "load", "http://127.0.0.1:1"])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 1
    assert "the run was cut short by a second signal, so nothing is proved" in capsys.readouterr().err


def test_argument_that_is_no_text_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["headrace", "state", "list", os.fsdecode(b"caf\xe9")])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "headrace: the argument 'caf\\udce9' is not in UTF-8; write it so.\n"


@pytest.mark.parametrize("error", [asyncpg.UndefinedTableError("no table"), OSError("no file"), KeyError("x")])
def test_bug_stays_a_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headrace.cli, "cli", _raises(error))
    with pytest.raises(type(error)):
        __main__.main()


def _raises(error: Exception) -> object:
    def cli(prog_name: str) -> None:
        raise error

    return cli
