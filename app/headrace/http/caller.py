"""Who asks, and what they may do: what a key, or a team's own authentication, says of a request."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.errors import ConfigurationError

PERMISSIONS = ("publish", "read", "operate")
PUBLISH = "publish:"
"""A scope of one type: `publish:order.placed`; or of those that begin alike: `publish:order.*`."""


class Caller:
    """A name, for the log, and scopes: `publish`, `publish:TYPE`, `publish:PREFIX.*`, `read`, `operate`.

    Others are kept and mean nothing here: a token may hold scopes of other services.
    """

    __slots__ = ("_prefixes", "_types", "events_per_second", "name", "scopes")

    def __init__(self, name: str, scopes: Iterable[str], events_per_second: float | None = None) -> None:
        """`events_per_second` is how much the caller may publish through each process; None if there is no limit.

        Raises: ConfigurationError (it is not more than 0).
        """
        if events_per_second is not None and not events_per_second > 0:
            raise ConfigurationError(
                f"Caller({name!r}): events_per_second={events_per_second!r} has to be more than 0, or None for no "
                "limit; who may publish nothing gets no scope publish."
            )
        self.name = name
        self.events_per_second = events_per_second
        self.scopes = frozenset([scopes] if isinstance(scopes, str) else scopes)
        named = [scope.removeprefix(PUBLISH) for scope in self.scopes if scope.startswith(PUBLISH)]
        self._types = frozenset(named)
        self._prefixes = tuple(each.removesuffix("*") for each in named if each.endswith("*"))

    def may(self, permission: str) -> bool:
        """True if the caller has the permission; for `publish` at least for some types."""
        return permission in self.scopes or (permission == "publish" and bool(self._types))

    def may_publish(self, type: str) -> bool:
        """True if the caller may publish events of the type."""
        return "publish" in self.scopes or type in self._types or type.startswith(self._prefixes)


def check_scope(scope: str) -> None:
    """Raise ConfigurationError for a scope that does not exist."""
    type_name = scope.removeprefix(PUBLISH)
    is_of_a_type = scope.startswith(PUBLISH) and bool(type_name) and "*" not in type_name.removesuffix("*")
    if scope not in PERMISSIONS and not is_of_a_type:
        raise ConfigurationError(
            f"there is no scope {scope!r}; the scopes are publish, publish:TYPE, publish:PREFIX.*, read and operate."
        )
