"""A policy: options of the handler over those of the subscription over the settings."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from headrace import DeadLetter, Event, Retry, Skip
from headrace.engine.policies import Policies, check_policies
from headrace.errors import ConfigurationError
from headrace.handlers.policy import Policy, complete
from headrace.handlers.subscription import Subscription
from headrace.registry import Registry
from headrace.settings import EngineSettings

SETTINGS = EngineSettings(
    retry_attempts=7, retry_first_seconds=0.25, retry_max_seconds=40.0, retry_jitter=0.1, retry_at_end="hold"
)


class Noted(Event, type="noted", topic="pages", key="page"):
    page: str


class Torn(Event, type="torn", topic="pages", key="page"):
    page: str


def note(event: Noted) -> None: ...


def tear(event: Torn) -> None: ...


def test_nearest_option_counts() -> None:
    subscription = Subscription("notes", service="shop", attempts=5, permanent=KeyError, timeout_seconds=9.0)
    subscription.on(Noted, attempts=2, outage=(OSError, TimeoutError))(note)
    subscription.on(Torn)(tear)
    policies = Policies(subscription, SETTINGS)
    inherited = Policy(7, 0.25, 40.0, 0.1, 9.0, "hold", permanent=(KeyError,))
    own = inherited._replace(attempts=2, outage=(OSError, TimeoutError))
    assert policies.of(subscription.handlers["noted"]) == own
    assert policies.of(subscription.handlers["torn"]) == policies.of(None) == inherited._replace(attempts=5)
    assert policies.longest_seconds == 9.0
    assert complete(EngineSettings()) == Policy(12, 0.5, 300.0, 0.5, 30.0, "dead_letter")


@pytest.mark.parametrize("own", ["transient", "permanent", "outage"])
@pytest.mark.parametrize("inherited", ["transient", "permanent", "outage"])
def test_what_a_handler_says_of_an_exception_counts(own: Any, inherited: Any) -> None:
    """Whatever its subscription says of it; of others that still counts."""
    outer: Any = {inherited: (OSError, KeyError)}
    inner: Any = {own: OSError}
    subscription = Subscription("notes", service="shop", **outer)
    subscription.on(Noted, **inner)(note)
    policy = Policies(subscription, SETTINGS).of(subscription.handlers["noted"])
    assert policy.kind_of(OSError()) == own
    if own != inherited:
        assert policy.kind_of(KeyError()) == inherited


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ([ConnectionResetError()], "outage"),
        ([ValueError(), ConnectionResetError()], "outage"),
        ([ValueError(), KeyError()], "permanent"),
        ([ValueError(), TimeoutError()], "transient"),
        ([ExceptionGroup("inner", [ConnectionResetError()])], "outage"),
    ],
    ids=repr,
)
def test_group_of_exceptions_is_what_is_in_it(error: list[Exception], kind: str) -> None:
    """A TaskGroup raises one."""
    policy = Policy(3, 1.0, 2.0, permanent=(KeyError,), outage=(ConnectionError,))
    assert policy.kind_of(ExceptionGroup("tasks", error)) == kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError(), "outage"),
        (FileNotFoundError(), "permanent"),
        (IsADirectoryError(), "transient"),
        (KeyError(), "permanent"),
        (ValueError(), "permanent"),
        (None, "transient"),
    ],
    ids=repr,
)
def test_nearest_class_of_an_exception_counts(error: Exception | None, kind: str) -> None:
    policy = Policy(
        3, 1.0, 2.0, transient=(OSError,), permanent=(Exception, FileNotFoundError), outage=(ConnectionError,)
    )
    assert policy.kind_of(error) == kind


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"attempt": 3}, "there is no option 'attempt'"),
        ({"attempts": 0}, "attempts=0 is wrong; it is a number from 1 to 1,000,000"),
        ({"attempts": sys.maxsize}, "it is a number from 1 to 1,000,000"),
        ({"attempts": True}, "attempts=True"),
        ({"first_seconds": 0}, "first_seconds=0"),
        ({"max_seconds": float("inf")}, "max_seconds=inf"),
        ({"max_seconds": 1e15}, "a number of seconds above 0, up to a hundred years"),
        ({"jitter": 1.5}, "a number from 0 to 1"),
        ({"timeout_seconds": "1"}, "timeout_seconds='1'"),
        ({"at_end": "park"}, "'dead_letter' or 'hold'"),
        ({"permanent": "KeyError"}, "an exception class"),
        ({"outage": (OSError, 3)}, "an exception class"),
        ({"outage": OSError, "transient": (KeyError, OSError)}, "OSError is named twice"),
    ],
    ids=str,
)
def test_wrong_option_is_refused_where_it_is_written(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match="subscription 'notes'") as refusal:
        Subscription("notes", service="shop", **options)
    assert told in str(refusal.value)
    with pytest.raises(ConfigurationError, match="subscription 'notes', handler note"):
        Subscription("notes", service="shop").on(Noted, **options)(note)


@pytest.mark.parametrize("seconds", [61.0, 100.0])
def test_time_limit_beyond_the_batch_is_refused(seconds: float) -> None:
    registry = Registry("shop")
    registry.add_subscription("notes", "earliest").on(Noted, timeout_seconds=seconds)(note)
    with pytest.raises(ConfigurationError, match=r"timeout_seconds=.* must be at most HEADRACE_ENGINE_"):
        check_policies(EngineSettings(batch_seconds=200.0), registry)


@pytest.mark.parametrize("seconds", [-1, 1e300, float("inf"), float("nan")])
def test_retry_names_a_time_that_comes(seconds: float) -> None:
    with pytest.raises(ValueError, match="a number of seconds, from 0 to a hundred years"):
        Retry(seconds)


def test_verdicts_may_stand_in_a_return_annotation() -> None:
    subscription = Subscription("notes", service="shop")

    @subscription.on(Noted)
    def answer(event: Noted) -> Torn | Skip | Retry | DeadLetter | None: ...

    assert subscription.handlers["noted"].signature.emits == (Torn,)
