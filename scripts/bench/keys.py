"""Keys over time: every head, and the whole history, sealed again under another key.

Ours beside the floor that reads, opens, seals and writes the same number of rows; each in a
process of its own, so that there is its peak of memory too.
"""

from __future__ import annotations

import jobs
from places import Place
from sealed_floors import open_sealed_floor
from seeds import Seed, Seeds
from turns import FLOOR, OURS, Outcome, Run, Scenario, Turn, compete

from ledger import Key

__all__ = ["measure"]


async def measure(place: Place, seeds: Seeds, events: int, rounds: int) -> list[Outcome]:
    """`rekey` and `migrate` over so many events, two versions a secret."""
    seed = await seeds.ledger(events // 2, 2)
    floor_url = place.empty("keys_floor")
    async with open_sealed_floor(floor_url) as floor:
        await floor.fill(seed.events)
    scenarios = [
        Scenario(
            name,
            {OURS: _ours(place, seed, name), FLOOR: _floor(floor_url, after)},
            unit=unit,
            warm_up=False,
        )
        # The heads are the second half of the log.
        for name, unit, after in (("rekey", "heads", seed.secrets), ("migrate", "events", 0))
    ]
    outcomes = await compete(scenarios, rounds)
    place.drop(floor_url)
    return outcomes


def _ours(place: Place, seed: Seed, name: str) -> Run:
    async def run() -> Turn:
        url = place.copy(seed.url)
        try:
            job = await jobs.do(name, url, key=seed.key, new_key=Key.generate())
        finally:
            place.drop(url)
        return Turn(job.done, job.seconds, peak_mb=job.peak_mb)

    return run


def _floor(url: str, after: int) -> Run:
    async def run() -> Turn:
        job = await jobs.do("floor: reseal", url, after=after)
        return Turn(job.done, job.seconds, peak_mb=job.peak_mb)

    return run
