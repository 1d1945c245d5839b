"""`headrace load` against a running service: what it reports is so, and what is not exact is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Start
from tests.support.command import headrace

QUICK = ["--seconds", "1", "--warm-up", "0", "--rate", "50", "--keys", "10", "--probes", "5"]
THINGS = ["--type", "thing.made", "--data", '{"name": "{key}"}', "--state", "things/seen"]


async def test_load_is_reported_and_proved_exact(start: Start, folder: Path) -> None:
    service = await start({"HEADRACE_LOG": "memory"})
    files = ["--json", "found.json", "--html", "found.html"]
    grown = ["--up-to", "100", "--growth", "2"]
    said = await headrace(folder, "load", service.url, *THINGS, "--expect", "count=count", *QUICK, *grown, *files)
    assert said.code == 0, said.out + said.err
    assert "thing.made of small go to http://127.0.0.1" in said.err
    report = json.loads((folder / "found.json").read_text())
    assert [step["name"] for step in report["steps"]][:1] == ["step 1"]
    exactness = report["exactness"]
    assert exactness["is_exact"]
    assert exactness["accepted"] == exactness["applied"] > 20
    assert exactness["keys_read"] == exactness["keys"]
    assert report["steps"][0]["to_visible"]["count"] > 0
    assert (folder / "found.html").read_text().count("<svg") == 5
    assert "EXACT" in said.out


async def test_states_that_differ_are_told(start: Start, folder: Path) -> None:
    service = await start({"HEADRACE_LOG": "memory"})
    said = await headrace(
        folder, "load", service.url, *THINGS, "--expect", "count=count", "--expect", "twice=count", *QUICK
    )
    assert said.code == 1
    assert "NOT EXACT: " in said.out
    assert "and the events come to" in said.out


async def test_parked_events_are_counted_as_such(start: Start, folder: Path) -> None:
    """Every event fails, so that all of them wait in lanes; a state that lacks them is explained by that."""
    service = await start({"HEADRACE_LOG": "memory"})
    picky = ["--type", "thing.made", "--data", '{"name": "picky"}']
    one_key = ["--keys", "1"]  # of several the breaker would take the failures for an outage
    for more, basis in (
        ([], "positions"),
        (["--state", "things/seen", "--expect", "count=count", "--probes", "0"], "states"),
    ):
        said = await headrace(folder, "load", service.url, *picky, *QUICK, *one_key, *more, "--json", "found.json")
        assert said.code == 0, said.out + said.err
        exactness = json.loads((folder / "found.json").read_text())["exactness"]
        assert exactness["parked"] == exactness["accepted"] > 0
        assert exactness["basis"] == basis


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["file:///etc"], "'file:///etc' is not the address of a deployment, such as http://127.0.0.1:8000."),
        (["http://127.0.0.1:9"], "http://127.0.0.1:9 does not answer: connection refused; is it running?"),
    ],
)
async def test_wrong_target_is_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    said = await headrace(tmp_path, "load", *arguments)
    assert (said.code, said.out, said.err) == (1, "", f"headrace: {sentence}\n")


async def test_target_has_no_default(tmp_path: Path) -> None:
    assert (await headrace(tmp_path, "load")).code == 2


async def test_what_the_target_does_not_declare_is_told(start: Start, folder: Path) -> None:
    service = await start({"HEADRACE_LOG": "memory"})
    for arguments, words in (
        ([], "small is not the example service"),
        (["--type", "thing.lost"], "--type thing.lost is not declared by small; its types are: thing.made."),
        ([*THINGS[:2], "--state", "other/seen"], "the subscriptions that take thing.made are: things."),
    ):
        said = await headrace(folder, "load", service.url, *arguments)
        assert said.code == 1
        assert words in said.err
