"""The input of each part of a run: where to measure, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from places import Place
from seeds import Seeds

__all__ = ["FULL", "QUICK", "Given", "Size"]


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a run."""

    seconds: float
    """Seconds of each turn."""
    secrets: int
    """Number of secrets that are written and read one by one."""
    events: int
    """Number of events in the log of long jobs, two versions of each secret."""
    boots: tuple[int, ...]
    """Number of secrets in each ledger that is booted."""
    versions: tuple[int, ...]
    """Number of versions of each secret whose old versions are read."""
    longest: int
    """Number of events that the growing ledger reaches."""


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
    """One database, its ledgers to copy, and the size of the run."""

    place: Place
    seeds: Seeds
    size: Size
    rounds: int

    @property
    def few(self) -> int:
        """Rounds of a scenario that takes long."""
        return min(self.rounds, 3)
