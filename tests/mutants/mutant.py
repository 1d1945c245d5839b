"""What a mutant is: places in the code, and what stands there instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Patch:
    """One place of a file, which occurs there once, and what is put there."""

    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Change the file. Raises: ValueError if the code is another one by now."""
        path = root / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has {text.count(self.old)} places like this: {self.old!r}")
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Hunt:
    """What the crash machine does in each seed: faults of any kind, or of those that are named."""

    kinds: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    """Crash points, of kinds that hit one."""
    events: int = 2_000
    faults: int = 0
    workers: int = 2
    partitions: int = 2
    shares: Mapping[str, float] = field(default_factory=dict)
    """How many events ask for something or make trouble, where it is not the load's own share."""

    @property
    def may_share(self) -> bool:
        """True if no fault disturbs the broker itself, so that runs may share one."""
        return bool(self.kinds or not self.faults) and not any("broker" in kind for kind in self.kinds)


ANYTHING = Hunt(events=20_000, faults=12, workers=3, partitions=6)
"""A part of what `make crash` does: about a minute."""


@dataclass(frozen=True)
class Mutant:
    """A mistake that somebody could make.

    `patches` make it in the product. The store and the log of the simulation are models: a mistake of SQL is made in
    the model as well, and what exists only in one of the two machines is made there alone (`simulated`, `on_servers`).
    """

    name: str
    patches: tuple[Patch, ...] = ()
    simulated: tuple[Patch, ...] = ()
    on_servers: tuple[Patch, ...] = ()
    hunt: Hunt = ANYTHING
    """What reaches the mistake on real servers."""
