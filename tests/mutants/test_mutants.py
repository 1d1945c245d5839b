"""The mutants still fit the code, and one of them is hunted: `make mutants` hunts them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.catalogue import ALL, BOTH, MUTANTS
from tests.mutants.copies import ROOT, hunt
from tests.mutants.mutant import Mutant, Patch


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_place_of_each_mistake_is_there_once(mutant: Mutant) -> None:
    assert mutant.patches or (mutant.simulated and mutant.on_servers)
    for patch in (*mutant.patches, *mutant.simulated, *mutant.on_servers):
        assert (ROOT / patch.file).read_text().count(patch.old) == 1
        assert patch.old != patch.new


@pytest.mark.parametrize("mutant", BOTH, ids=lambda mutant: mutant.name)
def test_mistake_is_made_in_both_machines(mutant: Mutant) -> None:
    models = [patch.file for patch in mutant.patches if patch.file.startswith("tests/")]
    assert not models, "a patch of a model alone changes nothing on real servers"
    assert all(not patch.file.startswith("tests/") for patch in mutant.on_servers)


def test_names_of_mutants_differ() -> None:
    assert len({mutant.name for mutant in ALL}) == len(ALL) >= 30


def test_mutant_is_found_by_the_checker_that_it_offends() -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == "statements outside of the transaction"]
    result = hunt(mutant, seconds=20.0)
    assert result["found"]["invariant"] == "I1 who waits has a lane"


def test_mutant_that_no_longer_fits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"a\.py has 0 places like this: 'three'"):
        Patch("a.py", "three", "four").apply(tmp_path)
