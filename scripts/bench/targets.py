"""The targets of the figures: ratios within one run, and promises for long jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from places import DatabaseName
from turns import OURS, PEER, Outcome

__all__ = ["MEMORY_LIMIT", "Verdict", "judge"]

_TIMES_THE_PEER: Final[dict[str, dict[DatabaseName, float]]] = {
    "put, one at a time": {"sqlite": 1.0, "postgresql": 1.2},
    "put, 64 callers": {"sqlite": 5.0, "postgresql": 12.0},
    "get latest, always fresh": {"sqlite": 1.0, "postgresql": 1.0},
    "get, in memory": {"sqlite": 10.0, "postgresql": 50.0},
    "replay with decryption": {"sqlite": 1.5, "postgresql": 1.5},
}
_A_SECOND: Final = {"rekey": 20_000, "migrate": 20_000}
"""Units a second that a long job must reach, on two cores."""
_SECONDS: Final = {"boot of 1,000,000, again": 1.0}
MEMORY_LIMIT: Final = 150
"""Megabytes that a long job may take at its peak, however long the log is."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target, beside the measured figure."""

    text: str
    met: bool


def judge(database: DatabaseName, outcome: Outcome) -> list[Verdict]:
    """Judge each target of a scenario: the medians of the rounds meet or miss it."""
    found: list[Verdict] = []
    ours = outcome.figures[OURS]
    if least := _TIMES_THE_PEER.get(outcome.name, {}).get(database):
        times = outcome.ratios[PEER].median
        text = f"{times:.2f} times the peer's rate; wanted: {least} or more"
        found.append(Verdict(text, times >= least))
    if pace := _A_SECOND.get(outcome.name):
        rate = ours.rate.median
        text = f"{rate:,.0f} {outcome.unit} a second; wanted: {pace:,} or more"
        found.append(Verdict(text, rate >= pace))
        if ours.peak_mb is not None:
            text = f"{ours.peak_mb:.0f} MB at its peak; wanted: under {MEMORY_LIMIT}"
            found.append(Verdict(text, ours.peak_mb < MEMORY_LIMIT))
    if (within := _SECONDS.get(outcome.name)) and ours.took is not None:
        text = f"ready after {ours.took:.2f} s; wanted: under {within}"
        found.append(Verdict(text, ours.took < within))
    return found
