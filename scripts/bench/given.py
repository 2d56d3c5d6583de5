"""What each part of a run is given: where to measure, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from places import Place
from seeds import Seeds

__all__ = ["FULL", "QUICK", "Given", "Size"]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    seconds: float
    """Of each turn."""
    secrets: int
    """That are written and read one by one."""
    events: int
    """In the log that long jobs work on, two versions a secret."""
    boots: tuple[int, ...]
    """Secrets in the ledgers that are booted."""
    versions: tuple[int, ...]
    """Of the secrets whose old versions are read."""
    longest: int
    """Events at which the ledger that grows has grown."""


FULL: Final = Size(
    seconds=1.5,
    secrets=10_000,
    events=200_000,
    boots=(10_000, 100_000, 1_000_000),
    versions=(10, 1_000, 100_000),
    longest=1_000_000,
)
QUICK: Final = Size(
    seconds=0.2,
    secrets=1_000,
    events=4_000,
    boots=(1_000, 4_000),
    versions=(10, 1_000),
    longest=10_000,
)


@dataclass(frozen=True, slots=True)
class Given:
    """One database, and what is there to be copied."""

    place: Place
    seeds: Seeds
    size: Size
    rounds: int

    @property
    def few(self) -> int:
        """Rounds of what takes long."""
        return min(self.rounds, 3)
