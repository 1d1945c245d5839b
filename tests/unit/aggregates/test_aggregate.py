"""An aggregate without a database: its commands are plain methods, and a wrong declaration says what to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

import msgspec
import pytest
from pydantic import BaseModel

from headrace import Aggregate, Event, Headrace, applies, upcast
from headrace.aggregates.aggregate import StateT
from headrace.aggregates.states import StateCodec
from headrace.errors import ConfigurationError, SchemaError
from tests.support.accounts import Account, Deposited


class Renamed(Event, type="renamed", topic="things", version=3):
    tags: list[str]


class Model(BaseModel):
    tags: list[str] = []


class Struct(msgspec.Struct):
    tags: list[str] = []


@dataclass
class Plain:
    tags: tuple[str, ...] = ()


def test_command_emits_and_its_event_changes_the_state() -> None:
    account = Account("ada")
    account.deposit(5)
    account.withdraw(2)
    assert account.state.amount == 3
    assert [event.amount for event in account.emitted] == [5, 2]
    with pytest.raises(ValueError, match="ada has 3"):
        account.withdraw(4)
    assert len(account.emitted) == 2


@pytest.mark.parametrize("model", [Model, Struct, Plain])
def test_state_is_any_kind_of_model(model: Any) -> None:
    codec = StateCodec("Thing", model, 1)
    raw = codec.encode(model(tags=type(model().tags)(["a"])))
    assert raw == '{"tags":["a"]}'
    assert codec.decode(raw.encode()) == model(tags=type(model().tags)(["a"]))
    assert codec.revision == StateCodec("Thing", model, 1).revision != StateCodec("Thing", model, 2).revision


def test_state_that_changes_on_its_way_is_not_kept() -> None:
    codec = StateCodec("Thing", Struct, 1)
    assert codec.encode(Struct(tags=[object()])) is None  # type: ignore[list-item]
    assert codec.encode(Struct(tags=("a",))) is None  # type: ignore[arg-type]


def test_event_is_written_when_it_is_emitted() -> None:
    """The state may share parts with the event, and change them later."""

    class Thing(Aggregate[Model]):
        @applies(Renamed)
        def renamed(self, event: Renamed) -> None:
            self.state.tags = event.tags

    thing = Thing("a")
    thing.emit(Renamed(tags=["b"]))
    thing.state.tags.append("c")
    assert thing.new_events[0].data == b'{"tags":["b"]}'


def test_subclass_inherits_state_and_methods() -> None:
    class Base(Aggregate[StateT], Generic[StateT]):
        pass

    class Thing(Base[Model]):
        @applies(Renamed)
        def renamed(self, event: Renamed) -> None:
            self.state.tags = event.tags

    class Special(Thing):
        @applies(Renamed)
        def special(self, event: Renamed) -> None:
            self.state.tags = [*event.tags, "special"]

    special = Special("a")
    special.emit(Renamed(tags=["b"]))
    assert special.state.tags == ["b", "special"]
    with pytest.raises(ConfigurationError, match="Base has no state; write class Base"):
        Base("a")


def test_wrong_declarations_say_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r"Aggregate\[int\]: a state is a Pydantic model, a msgspec\.Struct"):

        class Number(Aggregate[int]):
            pass

    class Needy(BaseModel):
        name: str

    with pytest.raises(ConfigurationError, match=r"Needy\(\) must work, since a new one starts from it"):

        class Thing(Aggregate[Needy]):
            pass

    with pytest.raises(ConfigurationError, match="stream='Not this' has to have 1 to 100"):

        class Other(Aggregate[Model], stream="Not this"):
            pass

    with pytest.raises(ConfigurationError, match="snapshot_every=0 must be at least 1"):

        class Often(Aggregate[Model], snapshot_every=0):
            pass

    with pytest.raises(ConfigurationError, match=r"two methods apply account\.deposited; keep one"):

        class Twice(Aggregate[Model]):
            @applies(Deposited)
            def one(self, event: Deposited) -> None:
                pass

            @applies(Deposited)
            def two(self, event: Deposited) -> None:
                pass

    with pytest.raises(ConfigurationError, match="cannot wait for anything; make it a plain `def`"):

        @applies(Deposited)
        async def waits(self: Any, event: Deposited) -> None:
            pass

    with pytest.raises(ConfigurationError, match="int is not an event type"):
        applies(int)


def test_event_that_nothing_applies_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Account emits Renamed, .* @applies\(Renamed\)"):
        Account("ada").emit(Renamed(tags=[]))


def test_aggregate_is_declared_with_its_events() -> None:
    platform = Headrace("bank")
    platform.declare(Account)
    assert set(platform.registry.types) == {"account.deposited", "account.withdrawn"}
    assert platform.registry.topics == ("accounts",)

    class Empty(Aggregate[Model]):
        pass

    class Second(Aggregate[Model], stream="account"):
        @applies(Deposited)
        def deposited(self, event: Deposited) -> None:
            pass

    with pytest.raises(ConfigurationError, match="Empty has no event; add a method"):
        platform.declare(Empty)
    with pytest.raises(ConfigurationError, match="Account and Second have the same streams, 'account'"):
        platform.declare(Second)


def test_upcasters_follow_one_another() -> None:
    class Grown(Event, type="grown", topic="things", version=4):
        names: list[str]
        size: int = 0

    @upcast(Grown, version=1)
    def listed(data: dict[str, Any]) -> dict[str, Any]:
        return {"names": [data["name"]]}

    @upcast(Grown, version=3)
    def sized(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "size": len(data["names"])}

    declared = Grown.__headrace_event_type__
    assert declared.decode_version(b'{"name": "a"}', 1) == Grown(names=["a"], size=1)
    assert declared.decode_version(b'{"names": ["a", "b"]}', 2) == Grown(names=["a", "b"], size=2)
    assert declared.decode_version(b'{"names": ["a"]}', 4) == Grown(names=["a"])
    with pytest.raises(SchemaError, match="the upcaster of version 1 raised KeyError"):
        declared.decode_version(b"{}", 1)
    with pytest.raises(SchemaError, match="has version 5 and this service knows version 4"):
        declared.decode_version(b"{}", 5)
    assert [declared.version_of(each) for each in (None, "grown/v2", "other/v9", "urn:x")] == [1, 2, 4, 4]
    with pytest.raises(ConfigurationError, match="is there twice"):
        upcast(Grown, version=1)
    with pytest.raises(ConfigurationError, match="the versions to bring up are 1 to 3"):
        upcast(Grown, version=4)
    with pytest.raises(ConfigurationError, match="it is not an event type"):
        upcast(Model, version=1)
