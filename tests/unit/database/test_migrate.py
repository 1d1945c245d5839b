"""The package's migration files."""

from __future__ import annotations

import re

import pytest

from headrace.database.migrate import PHASES, Migration, Phase, expected_version, load_migrations

MIGRATIONS = load_migrations()


@pytest.mark.parametrize("phase", PHASES)
def test_files_are_numbered_without_a_gap(phase: Phase) -> None:
    numbers = [migration.number for migration in MIGRATIONS if migration.phase == phase]
    assert numbers == list(range(1, expected_version(phase) + 1))


@pytest.mark.parametrize("migration", MIGRATIONS, ids=str)
def test_every_file_says_its_purpose_and_names_its_schema(migration: Migration) -> None:
    assert migration.sql.startswith("-- ")
    for name in re.findall(r"(?:create|alter|drop) table (?:if (?:not )?exists )?(\S+)", migration.sql):
        assert name.startswith("headrace."), name


def test_the_checksum_follows_the_text() -> None:
    first = MIGRATIONS[0]
    assert first.checksum == first._replace(name="other").checksum
    assert first.checksum != first._replace(sql=first.sql + " ").checksum
