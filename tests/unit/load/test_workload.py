"""The data of events, and what their states must come to."""

from __future__ import annotations

import json
import random

import pytest

from headrace.errors import ConfigurationError
from headrace.load.template import Template
from headrace.load.workload import Expected, Kind, Workload, counting_field, parse_effects, wallets


def test_template_fills_in_key_number_and_integers() -> None:
    template = Template({"name": "a {key} b", "n": "no {n}", "deep": ["{integer 3 3}"], "amount": "{integer 5 9}"})
    text, drawn = template.render("k1", 7, random.Random(1))
    data = json.loads(text)
    assert data == {"name": "a k1 b", "n": "no 7", "deep": [3], "amount": drawn[1]}
    assert 5 <= template.number_of("amount", drawn) <= 9


def test_template_tells_whether_it_holds_the_key() -> None:
    assert Template({"a": "{key}"}).has_key
    assert not Template({"a": "x"}).has_key


@pytest.mark.parametrize("data", [{"a": "{kye}"}, {"a": "{integer 9 1}"}, {"a": "x {integer 1 2}"}])
def test_wrong_placeholder_is_refused(data: object) -> None:
    with pytest.raises(ConfigurationError, match="--data"):
        Template(data)


def test_expected_states_are_the_sum_of_the_accepted_events() -> None:
    workload, expected = Workload("r", wallets(), keys=3, seed=1), Expected()
    events = workload.make(1_000)
    expected.accept(events)
    assert len({event.id for event in events}) == 1_000
    for key, state in expected.states.items():
        mine = [event for event in events if event.key == key]
        signs = [1 if event.kind.type == "wallet.credited" else -1 for event in mine]
        amounts = [json.loads(event.data)["amount"] for event in mine]
        assert state["applied"] == len(mine)
        assert state["balance"] == sum(sign * amount for sign, amount in zip(signs, amounts, strict=True))


def test_effects_are_read_from_the_command_line() -> None:
    data = Template({"amount": "{integer 1 9}", "fixed": 4})
    effects = parse_effects(["seen=count", "left = -sum(amount)", "all=sum(fixed)"], data)
    assert [tuple(each) for each in effects] == [("seen", None, 1), ("left", "amount", -1), ("all", "fixed", 1)]
    assert counting_field([Kind("t", "t", data, effects)]) == "seen"
    assert counting_field([Kind("t", "t", data, effects[1:])]) is None


@pytest.mark.parametrize("text", ["seen", "seen=total", "seen=sum(nothing)"])
def test_wrong_expectation_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--expect"):
        parse_effects([text], Template({"amount": 1}))


def test_a_probe_has_a_key_of_its_own() -> None:
    workload = Workload("r", wallets(), keys=1, seed=1)
    probe, event = workload.make_probe(), workload.make(1)[0]
    assert probe.key != event.key
    assert workload.make_probe().key != probe.key
