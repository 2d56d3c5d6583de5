"""Turns: contenders do the same thing one after the other, round after round.

A machine is never as quick in one minute as in the next. So only figures of the same round are
compared, and another contender goes first in each round. The result is the median of the rounds,
with the lowest and the highest.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from progress import clear, say

__all__ = [
    "FLOOR",
    "OURS",
    "PEER",
    "Figures",
    "Outcome",
    "Run",
    "Scenario",
    "Spread",
    "Turn",
    "compete",
]

OURS: Final = "ours"
FLOOR: Final = "floor"
PEER: Final = "peer"

_PAUSE: Final = 0.05
"""Seconds before each turn, for tasks that wait while a contender blocks the event loop."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        return cls(statistics.median(figures), min(figures), max(figures))


@dataclass(frozen=True, slots=True)
class Turn:
    """The work of one contender in one turn."""

    done: int
    seconds: float
    p50: float | None = None
    """Median seconds of an operation; None if operations were not timed one by one."""
    p99: float | None = None
    took: float | None = None
    """Seconds of the whole turn if it was one long operation, else None."""
    peak_mb: float | None = None
    """Peak memory in megabytes if the turn had a process of its own, else None."""

    @property
    def rate(self) -> float:
        """Operations, or things done, a second."""
        return self.done / self.seconds


Run = Callable[[], Awaitable[Turn]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """The same work for several contenders: ours, the floor, the peer, its variants (`peer: …`)."""

    name: str
    contenders: Mapping[str, Run]
    unit: str = "operations"
    warm_up: bool = True


@dataclass(frozen=True, slots=True)
class Figures:
    """A contender's figures over its turns. Times are medians in seconds; memory is the highest."""

    rate: Spread
    p50: float | None
    p99: float | None
    took: float | None
    peak_mb: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a scenario."""

    name: str
    unit: str
    figures: Mapping[str, Figures]
    ratios: Mapping[str, Spread]
    """Ratios of our rate to each other contender's rate, over the rounds."""


async def compete(scenarios: Iterable[Scenario], rounds: int) -> list[Outcome]:
    """Run every scenario once in each round, after a warm-up round that doesn't count."""
    turns: list[tuple[Scenario, dict[str, list[Turn]]]] = [
        (scenario, {name: [] for name in scenario.contenders}) for scenario in scenarios
    ]
    for number in range(-1, rounds):
        for scenario, taken in turns:
            if number < 0 and not scenario.warm_up:
                continue
            for name in _in_turn(list(scenario.contenders), number):
                turn_of = f"round {number + 1} of {rounds}" if number >= 0 else "warm-up"
                say(f"{turn_of}: {scenario.name}: {name}")
                await asyncio.sleep(_PAUSE)
                turn = await scenario.contenders[name]()
                if number >= 0:
                    taken[name].append(turn)
    clear()
    return [_outcome(scenario, taken) for scenario, taken in turns]


def _in_turn(names: Sequence[str], number: int) -> Iterator[str]:
    """Another name comes first in each round."""
    first = number % len(names)
    yield from (*names[first:], *names[:first])


def _outcome(scenario: Scenario, taken: Mapping[str, Sequence[Turn]]) -> Outcome:
    ours = taken[OURS]
    ratios = {
        name: Spread.of([mine.rate / turn.rate for mine, turn in zip(ours, turns, strict=True)])
        for name, turns in taken.items()
        if name != OURS
    }
    figures = {name: _figures(turns) for name, turns in taken.items()}
    return Outcome(scenario.name, scenario.unit, figures, ratios)


def _figures(turns: Sequence[Turn]) -> Figures:
    return Figures(
        Spread.of([turn.rate for turn in turns]),
        _over([turn.p50 for turn in turns], statistics.median),
        _over([turn.p99 for turn in turns], statistics.median),
        _over([turn.took for turn in turns], statistics.median),
        _over([turn.peak_mb for turn in turns], max),
    )


def _over(figures: Iterable[float | None], fold: Callable[[list[float]], float]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return fold(known) if known else None
