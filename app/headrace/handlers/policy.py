"""What is done about a handler that fails: how often it is tried, when, for how long, and what happens at the end.

An option of the handler (`.on(..., attempts=3)`) comes before one of its subscription
(`events.subscription("wallets", attempts=3)`), and that before the settings (`HEADRACE_ENGINE_RETRY_...`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict

from headrace.durations import is_duration
from headrace.errors import ConfigurationError

if TYPE_CHECKING:
    from headrace.settings import EngineSettings

AtEnd = Literal["dead_letter", "hold"]
Errors: TypeAlias = "type[BaseException] | tuple[type[BaseException], ...]"
ErrorKind = Literal["transient", "permanent", "outage"]

MOST_ATTEMPTS = 1_000_000
"""As the setting allows; Postgres counts them in four bytes."""
ENDS: tuple[AtEnd, ...] = ("dead_letter", "hold")
KINDS: tuple[ErrorKind, ...] = ("transient", "permanent", "outage")


class PolicyOptions(TypedDict, total=False):
    """The options of a handler or a subscription; what is left out is inherited."""

    attempts: int
    """How many times a failing event is tried."""
    first_seconds: float
    """The wait before the first retry; it doubles with each failure."""
    max_seconds: float
    """The longest wait between two retries."""
    jitter: float
    """The part of a wait that chance takes off, from 0 to 1."""
    timeout_seconds: float
    """How long one attempt may take."""
    at_end: AtEnd
    """What happens after the last attempt: `dead_letter`, and the key goes on; or `hold` the key until someone acts."""
    transient: Errors
    """Exceptions that are tried again, as all are that nothing else is said of."""
    permanent: Errors
    """Exceptions that no retry can help: a dead letter at once."""
    outage: Errors
    """Exceptions that are not the event's fault: tried again until they are gone, and no attempt is used up."""


class Policy(NamedTuple):
    """The policy of one handler, complete. Of the classes that an exception is of, the nearest that is named counts.

    A group of exceptions is a sign of an outage if one of them is, else permanent if one of them is.
    """

    attempts: int
    first_seconds: float
    max_seconds: float
    jitter: float = 0.5
    timeout_seconds: float = 30.0
    at_end: AtEnd = "dead_letter"
    transient: tuple[type[BaseException], ...] = ()
    permanent: tuple[type[BaseException], ...] = ()
    outage: tuple[type[BaseException], ...] = ()
    gap_seconds: float = 0.0
    """How long an event waits for missing ones before it, in a subscription in sequence; no option of a handler."""

    def delay(self, attempt: int) -> float:
        """Return the longest delay before the run that follows the failed attempt number `attempt` (1, 2, ...)."""
        doublings = min(attempt - 1, 64)  # a float overflows after 1,024 of them
        return min(self.max_seconds, self.first_seconds * 2.0**doublings)

    def in_an_outage(self) -> Policy:
        """Return the policy during an outage: what is not permanent, or came to no error at all, is a sign of it."""
        return self._replace(transient=(), outage=(object,))  # type: ignore[arg-type]

    def kind_of(self, error: BaseException | None) -> ErrorKind:
        """Return what an exception means."""
        for base in type(error).__mro__:
            for kind in KINDS:
                if base in getattr(self, kind):
                    return kind
        found = {self.kind_of(each) for each in error.exceptions} if isinstance(error, BaseExceptionGroup) else set()
        return "outage" if "outage" in found else "permanent" if "permanent" in found else "transient"


def complete(settings: EngineSettings, *options: Mapping[str, Any]) -> Policy:
    """Return the policy that the settings make, with the options over them: a later one counts."""
    policy = Policy(
        attempts=settings.retry_attempts,
        first_seconds=settings.retry_first_seconds,
        max_seconds=settings.retry_max_seconds,
        jitter=settings.retry_jitter,
        timeout_seconds=settings.handler_seconds,
        at_end=settings.retry_at_end,
    )
    for given in options:
        policy = policy._replace(**given)
    return policy


def inherited(options: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a subscription with those of its handler over them, also where both name an exception."""
    named = {each for kind in KINDS for each in own.get(kind, ())}
    kept = {
        name: tuple(each for each in value if each not in named) if name in KINDS else value
        for name, value in options.items()
    }
    return kept | dict(own)


def checked(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the options, exceptions as tuples. Raises: ConfigurationError that names the option and what is valid."""
    options = {name: _classes(name, value, where) if name in KINDS else value for name, value in given.items()}
    for name, value in options.items():
        rule = _RULES.get(name)
        if rule is None:
            known = ", ".join(PolicyOptions.__annotations__)
            raise ConfigurationError(f"{where}: there is no option {name!r}; a policy has {known}.")
        is_right, valid = rule
        if not is_right(value):
            raise ConfigurationError(f"{where}: {name}={value!r} is wrong; it is {valid}.")
    named = [each for kind in KINDS for each in options.get(kind, ())]
    if twice := next((each for each in named if named.count(each) > 1), None):
        raise ConfigurationError(
            f"{where}: {twice.__name__} is named twice; an exception is transient, permanent or an outage."
        )
    return options


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_DURATION = is_duration, "a number of seconds above 0, up to a hundred years"
_RULES: dict[str, tuple[Any, str]] = {
    "attempts": (
        lambda value: type(value) is int and 1 <= value <= MOST_ATTEMPTS,
        f"a number from 1 to {MOST_ATTEMPTS:,}",
    ),
    "first_seconds": _DURATION,
    "max_seconds": _DURATION,
    "jitter": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "timeout_seconds": _DURATION,
    "at_end": (lambda value: value in ENDS, "'dead_letter' or 'hold'"),
    **{kind: (lambda value: True, "") for kind in KINDS},
}


def _classes(name: str, value: object, where: str) -> tuple[type[BaseException], ...]:
    classes = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        raise ConfigurationError(f"{where}: {name}={value!r} is wrong; it is an exception class, or a tuple of them.")
    return classes
