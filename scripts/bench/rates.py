"""Rates: what the ledger does in a second, in turns with what the raw driver does."""

# ruff: noqa: S311 - chance picks rows here, it guards nothing

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Final

from floors import Floor, open_floor
from places import Place

from ledger import Key, Keyring, SecretLedger

__all__ = [
    "CALLERS",
    "FULL",
    "QUICK",
    "VALUE",
    "Rate",
    "Size",
    "Spread",
    "measure",
    "put_some",
    "repeat",
    "seed",
]

VALUE: Final = 200
"""Bytes of a value."""
CALLERS: Final = 64
_VERSIONS: Final = 2
"""Of each secret that is read: half of the events are heads."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    seconds: float
    """Of each turn."""
    events: int
    """In the ledger that is read."""


FULL: Final = Size(seconds=1.5, events=20_000)
QUICK: Final = Size(seconds=0.3, events=2_000)


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: list[float]) -> Spread:
        return cls(statistics.median(figures), min(figures), max(figures))


@dataclass(frozen=True, slots=True)
class Rate:
    """A scenario's operations a second, and the median of the rounds' own ratios."""

    name: str
    ours: Spread
    floor: Spread
    ratio: Spread

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


Run = Callable[[], Awaitable[float]]
"""One turn: operations a second."""


async def measure(place: Place, size: Size, rounds: int) -> list[Rate]:
    """Every scenario on one database, after a turn of each as warm-up."""
    keyring = Keyring.of(Key.generate())
    async with AsyncExitStack() as stack:
        written_url, read_url = place.empty("written"), place.empty("read")
        written = await stack.enter_async_context(SecretLedger.open(written_url, keyring))
        read = await stack.enter_async_context(SecretLedger.open(read_url, keyring))
        names = await seed(read, size.events)
        floors = [await open_floor(place.empty(f"floor_{what}")) for what in ("put", "get")]
        for floor in floors:
            stack.push_async_callback(floor.close)
        await floors[1].fill(size.events)
        scenarios = {
            **_writes(written, floors[0], size.seconds),
            **_reads(read, floors[1], size.seconds, names),
            "boot (verify latest)": (
                lambda: _boot(read_url, keyring, len(names)),
                lambda: _scan(floors[1]),
            ),
        }
        return [rate async for rate in _in_turns(scenarios, rounds)]


async def seed(ledger: SecretLedger, events: int) -> list[str]:
    """Write that many events, two versions a secret; the names."""
    value = random.randbytes(VALUE)
    names = [f"tenant-{n % 50:02}/source-{n:07}/key" for n in range(events // _VERSIONS)]
    for _ in range(_VERSIONS):
        for start in range(0, len(names), 1000):
            await ledger.put_many(dict.fromkeys(names[start : start + 1000], value))
    return names


def _writes(ledger: SecretLedger, floor: Floor, seconds: float) -> dict[str, tuple[Run, Run]]:
    put = put_some(ledger)

    async def batch() -> None:
        await floor.put_batch(CALLERS)

    return {
        "put, one writer": (
            lambda: repeat(put, seconds),
            lambda: repeat(floor.put, seconds),
        ),
        f"put, {CALLERS} callers": (
            lambda: repeat(put, seconds, callers=CALLERS),
            lambda: repeat(batch, seconds, each=CALLERS),
        ),
    }


def _reads(
    ledger: SecretLedger, floor: Floor, seconds: float, names: list[str]
) -> dict[str, tuple[Run, Run]]:
    async def get() -> None:
        await ledger.get(random.choice(names))

    async def replay() -> float:
        report = await ledger.verify("full")
        report.raise_if_not_ok()
        return report.events / report.seconds

    return {
        "get latest": (lambda: repeat(get, seconds), lambda: repeat(floor.get, seconds)),
        "replay (verify full)": (replay, lambda: _scan(floor)),
    }


def put_some(ledger: SecretLedger) -> Callable[[], Awaitable[None]]:
    """A write of one of a thousand secrets."""
    value = random.randbytes(VALUE)

    async def put() -> None:
        number = random.randrange(1000)
        await ledger.put(f"tenant-{number % 50:02}/source-{number:07}/key", value)

    return put


async def _boot(url: str, keyring: Keyring, secrets: int) -> float:
    began = perf_counter()
    async with SecretLedger.open(url, keyring):
        return secrets / (perf_counter() - began)


async def _scan(floor: Floor) -> float:
    began = perf_counter()
    rows = await floor.scan()
    return rows / (perf_counter() - began)


async def repeat(
    operation: Callable[[], Awaitable[None]], seconds: float, *, callers: int = 1, each: int = 1
) -> float:
    """Operations a second, of so many callers at once."""
    began = perf_counter()
    done = 0

    async def caller() -> None:
        nonlocal done
        while perf_counter() - began < seconds:
            await operation()
            done += each

    if callers == 1:
        await caller()
    else:
        await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (perf_counter() - began)


async def _in_turns(scenarios: dict[str, tuple[Run, Run]], rounds: int) -> Any:
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in scenarios}
    for number in range(-1, rounds):
        for name, (ours, floor) in scenarios.items():
            if number % 2:  # whoever goes first may find the disk busy
                below = await floor()
                above = await ours()
            else:
                above = await ours()
                below = await floor()
            if number >= 0:
                figures[name].append((above, below))
    for name, pairs in figures.items():
        yield Rate(
            name,
            ours=Spread.of([above for above, _ in pairs]),
            floor=Spread.of([below for _, below in pairs]),
            ratio=Spread.of([above / below for above, below in pairs]),
        )
