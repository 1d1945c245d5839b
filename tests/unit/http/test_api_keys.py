"""Keys are known by their digest, the file is read again when it changes, and a broken file changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from headrace.http.api_keys import KeyFile


def write(path: Path, *entries: object) -> Path:
    """Write a file of keys."""
    path.write_text(json.dumps(entries))
    return path


CI = {"name": "ci", "key": "s3cret", "scopes": ["publish"]}
OPS = {"sha256": hashlib.sha256(b"other").hexdigest(), "scopes": ["read", "operate"]}


def test_a_key_is_found_by_its_text_or_by_its_digest(tmp_path: Path) -> None:
    keys = KeyFile(write(tmp_path / "keys", CI, OPS))
    ci, ops = keys.find("s3cret"), keys.find("other")
    assert ci is not None
    assert ops is not None
    assert (ci.caller.name, ci.caller.scopes) == ("ci", frozenset({"publish"}))
    assert (ops.caller.name, ops.caller.scopes) == ("key 2", frozenset({"read", "operate"}))
    assert keys.find("S3cret") is None
    assert keys.find("") is None
    assert keys.find("\xff") is None


def test_a_changed_file_counts_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "keys", CI)
    keys = KeyFile(path)
    write(path, {**CI, "key": "another"})
    os.utime(path, ns=(1, 1))
    assert keys.find("s3cret") is None
    assert keys.find("another") is not None


def test_a_secret_swapped_by_symlink_counts_at_once(tmp_path: Path) -> None:
    for name, key in (("one", "s3cret"), ("two", "rotate")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "keys", {**CI, "key": key})
        os.utime(tmp_path / name / "keys", ns=(5, 5))
    (tmp_path / "data").symlink_to("one")
    keys = KeyFile(tmp_path / "data" / "keys")
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "data")
    assert keys.find("s3cret") is None
    assert keys.find("rotate") is not None


def test_a_file_that_breaks_leaves_the_old_keys_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "keys", CI)
    keys = KeyFile(path)
    path.write_text("[{]")
    assert keys.find("s3cret") is not None
    assert keys.find("s3cret") is not None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    path.unlink()
    assert keys.find("s3cret") is not None
    write(path, OPS)
    assert keys.find("s3cret") is None
    assert keys.find("other") is not None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is wrong"),
        ("{}", "is wrong"),
        ("[" * 100_000, "is wrong"),
        ("[]", "holds no key"),
        ('[{"key": "a"}]', "scopes"),
        ('[{"key": "a", "scopes": ["admin"]}]', "admin"),
        ('[{"key": "", "scopes": ["read"]}]', "key"),
        ('[{"scopes": ["read"]}]', "either key or sha256"),
        ('[{"key": "a", "sha256": "' + "0" * 64 + '", "scopes": []}]', "either key or sha256"),
        ('[{"sha256": "abc", "scopes": []}]', "sha256"),
        ('[{"key": "a", "scopes": [], "rights": []}]', "rights"),
        ('[{"key": "a", "scopes": []}, {"key": "a", "scopes": []}]', "twice"),
    ],
)
def test_a_broken_file_refuses_the_start_and_names_the_setting(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        KeyFile(path)
    assert "HEADRACE_API_KEYS_FILE" in str(caught.value)


def test_a_missing_file_refuses_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        KeyFile(tmp_path / "keys")
