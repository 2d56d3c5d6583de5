"""Turns: contenders do the same thing one after the other, round after round.

A machine is never as quick in one minute as in the next, so only what was measured in the same
round is compared, and whoever goes first changes from round to round. What is told is the
median of the rounds, with the lowest and the highest.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Final

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
    "repeat",
    "repeat_in_threads",
]

OURS: Final = "ours"
FLOOR: Final = "floor"
PEER: Final = "peer"


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
    """What one contender did in one turn."""

    done: int
    seconds: float
    p50: float | None = None
    """Seconds that an operation took, where they were timed one by one."""
    p99: float | None = None
    peak_mb: float | None = None
    """The memory of the process that did it, where it had one of its own."""

    @property
    def rate(self) -> float:
        """A second."""
        return self.done / self.seconds


Run = Callable[[], Awaitable[Turn]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """The same thing done by several contenders: ours, the floor, the peer and its variants
    (`peer: …`)."""

    name: str
    contenders: Mapping[str, Run]
    unit: str = "operations"
    warm_up: bool = True


@dataclass(frozen=True, slots=True)
class Figures:
    """What a contender's turns come to. Latencies are the median of each turn's own."""

    rate: Spread
    p50: float | None
    p99: float | None
    peak_mb: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scenario, measured."""

    name: str
    unit: str
    figures: Mapping[str, Figures]
    ratios: Mapping[str, Spread]
    """Ours to each of the others: the median of the rounds' own ratios."""


async def compete(scenarios: Iterable[Scenario], rounds: int) -> list[Outcome]:
    """Every scenario once in each round, after a round that doesn't count."""
    turns: list[tuple[Scenario, dict[str, list[Turn]]]] = [
        (scenario, {name: [] for name in scenario.contenders}) for scenario in scenarios
    ]
    for number in range(-1, rounds):
        for scenario, taken in turns:
            if number < 0 and not scenario.warm_up:
                continue
            for name in _in_turn(list(scenario.contenders), number):
                turn = await scenario.contenders[name]()
                if number >= 0:
                    taken[name].append(turn)
    return [_outcome(scenario, taken) for scenario, taken in turns]


def _in_turn(names: Sequence[str], number: int) -> Iterator[str]:
    """The names, beginning with another one each time."""
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
        _over([turn.peak_mb for turn in turns], max),
    )


def _over(figures: Iterable[float | None], fold: Callable[[list[float]], float]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return fold(known) if known else None


async def repeat(
    operation: Callable[[], Awaitable[object]], seconds: float, *, callers: int = 1, each: int = 1
) -> Turn:
    """Call it for so long, by so many tasks at once; each call does `each` operations."""
    took: list[float] = []
    began = perf_counter()

    async def caller() -> None:
        before = perf_counter()
        while before - began < seconds:
            await operation()
            after = perf_counter()
            took.append(after - before)
            before = after

    if callers == 1:
        await caller()
    else:
        await asyncio.gather(*(caller() for _ in range(callers)))
    return _turn(took, perf_counter() - began, alone=callers * each == 1, each=each)


def repeat_in_threads(operations: Sequence[Callable[[], object]], seconds: float) -> Turn:
    """The same of a library that blocks: a thread for each operation, or none for a single one."""
    took: list[float] = []
    began = perf_counter()

    def caller(operation: Callable[[], object]) -> None:
        before = perf_counter()
        while before - began < seconds:
            operation()
            after = perf_counter()
            took.append(after - before)
            before = after

    if len(operations) == 1:
        caller(operations[0])
    else:
        with ThreadPoolExecutor(len(operations)) as threads:
            for done in [threads.submit(caller, operation) for operation in operations]:
                done.result()
    return _turn(took, perf_counter() - began, alone=len(operations) == 1)


def _turn(took: list[float], seconds: float, *, alone: bool, each: int = 1) -> Turn:
    done = len(took) * each
    if not alone:  # how long one waited for others is no latency of an operation
        return Turn(done, seconds)
    took.sort()
    return Turn(done, seconds, p50=took[len(took) // 2], p99=took[len(took) * 99 // 100])
