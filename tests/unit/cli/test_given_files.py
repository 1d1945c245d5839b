"""What a person gives to a command in a file or in an editor."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli import cli
from headrace.cli.dead_letter_decisions import edit_text
from headrace.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _no_visual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)


@pytest.mark.parametrize("text", ["a,b\r\n1,2\r\n", "one\ntwo", "größe\n", ""])
def test_editor_that_changes_nothing_leaves_the_text_as_it_is(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("EDITOR", "true")
    assert edit_text(text) == text


def test_editor_may_write_another_file_in_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "changed\\n" > "$1.new" && mv "$1.new" "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    assert edit_text("text") == "changed"


@pytest.mark.parametrize("command", ["false", "rm", "cp /dev/null/none", 'sh -c \'printf "\\377" > "$0"\'', "'"])
def test_editor_that_fails_is_a_sentence(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("EDITOR", command)
    with pytest.raises(ConfigurationError, match=r"the editor .* failed .*; set EDITOR, or pass --data FILE"):
        edit_text("text")


def test_state_from_a_file_that_is_missing_is_a_sentence() -> None:
    said = CliRunner().invoke(cli, ["state", "put", "shop.service:app", "wallets", "wallet", "ada", "@/no/such/file"])
    assert isinstance(said.exception, ConfigurationError)
    assert str(said.exception) == "/no/such/file cannot be read: No such file or directory."
