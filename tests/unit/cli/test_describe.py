"""What an application declares is described with the policy of each function."""

from __future__ import annotations

from headrace import Event, Headrace, Step
from headrace.cli.describe import describe_registry
from headrace.settings import EngineSettings


class Asked(Event, type="asked", topic="asked"):
    """What is asked."""


class Told(Event, type="told", topic="asked"):
    """What is told."""


def test_effect_is_described_as_what_the_team_wrote() -> None:
    platform = Headrace("shop")
    asking = platform.subscription("asking")

    @asking.effect(Asked, attempts=3)
    async def ask(event: Asked, step: Step) -> None: ...

    @asking.on(Told)
    def tell(event: Told) -> None: ...

    platform.registry.complete()
    described = describe_registry(platform.registry, EngineSettings())["handlers"]
    assert [(each["handler"], each["types"], each["kind"], each["policy"]["attempts"]) for each in described] == [
        ("tell", ["told"], "sync", 12),
        ("ask", ["asked"], "effect", 3),
    ]
