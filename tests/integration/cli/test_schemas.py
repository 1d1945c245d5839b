"""`headrace schemas` refuses a change that cannot read what the log has, and says what to do about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import Said, headrace

SHOP = """
from fastapi import FastAPI
from headrace import Event, Headrace, upcast

events = Headrace("shop")
app = FastAPI(lifespan=events.lifespan)

class Placed(Event, type="order.placed", topic={topic!r}, key={key!r}{version}):
    order: str
    customer: str = ""
{fields}

{more}
events.declare(Placed)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


def write(
    folder: Path, *, topic: str = "orders", key: str = "order", version: int = 1, fields: str = "", more: str = ""
) -> None:
    """Write the service's module anew."""
    told = f", version={version}" if version > 1 else ""
    text = SHOP.format(topic=topic, key=key, version=told, fields=f"    {fields}", more=more)
    (folder / "shop_schemas.py").write_text(text)


async def said(folder: Path, verb: str, *options: str) -> Said:
    return await headrace(folder, "schemas", verb, "shop_schemas:app", str(folder / "schemas"), *options)


async def test_change_that_the_log_survives_passes_once_it_is_exported(folder: Path) -> None:
    assert (await said(folder, "check")).err.strip().endswith("write it with headrace schemas export.")
    exported = await said(folder, "export")
    assert exported.code == 0 and "order.placed.v1.json" in exported.out, exported.err
    schema = json.loads((folder / "schemas" / "order.placed.v1.json").read_text())
    assert schema["x-headrace"] == {"type": "order.placed", "version": 1, "topic": "orders", "key": "order"}
    assert schema["properties"]["order"]["type"] == "string"
    assert (await said(folder, "check")).code == 0

    write(folder, fields="note: str = ''")
    old = await said(folder, "check")
    assert old.code == 1 and "order.placed.v1.json: not as declared; write it with: headrace schemas export" in old.err
    assert (await said(folder, "export")).code == 0
    assert (await said(folder, "check")).code == 0


async def test_change_that_cannot_read_the_log_is_refused(folder: Path) -> None:
    await said(folder, "export")
    write(folder, fields="total: int")
    for verb in ("check", "export"):
        refused = await said(folder, verb)
        assert refused.code == 1
        assert (
            "order.placed v1: total: it is new and required; give it a default; or raise version= of Placed to 2 and "
            "declare @upcast(Placed, version=1)." in refused.err
        )
    write(folder, fields="total: int", version=2)
    assert "or declare @upcast(Placed, version=1)." in (await said(folder, "check")).err
    upcaster = "@upcast(Placed, version=1)\ndef with_total(data): return data | {'total': 0}"
    write(folder, fields="total: int", version=2, more=upcaster)
    exported = await said(folder, "export")
    assert exported.code == 0 and "order.placed.v2.json" in exported.out, exported.err
    assert (await said(folder, "check")).code == 0
    assert (folder / "schemas" / "order.placed.v1.json").exists(), "versions stand side by side"
    write(folder)
    assert "its version was 2 and is 1; a version never goes back" in (await said(folder, "check")).err


async def test_topic_key_and_a_type_that_is_gone_are_refused(folder: Path) -> None:
    await said(folder, "export")
    write(folder, topic="sales", key="customer")
    refused = (await said(folder, "check")).err
    assert "its topic was 'orders' and is 'sales'" in refused
    assert "its key was order and is customer" in refused
    assert (await said(folder, "export", "--force")).code == 0
    (folder / "schemas" / "gone.v1.json").write_text(
        (folder / "schemas" / "order.placed.v1.json").read_text().replace("order.placed", "gone")
    )
    assert "gone: the type is not declared any more" in (await said(folder, "check")).err
    (folder / "schemas" / "gone.v1.json").write_text("{}")
    assert "is no schema that headrace schemas export wrote" in (await said(folder, "check")).err
