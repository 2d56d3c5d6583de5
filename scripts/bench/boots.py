"""Boots: a process opens a ledger with many secrets, for the first time and again.

The floor beside it reads and opens as many rows. The peer does not take part: it starts without a
look at the stored events.
"""

from __future__ import annotations

import apart
from given import Given
from places import Place
from sealed_floors import filled
from seeds import Seed
from turns import FLOOR, OURS, Outcome, Scenario, Turn, compete

__all__ = ["measure"]


async def measure(given: Given) -> list[Outcome]:
    """Measure a cold boot and a second boot for each number of secrets."""
    place, outcomes = given.place, list[Outcome]()
    for secrets in given.size.boots:
        seed = await given.seeds.ledger(secrets, 1)
        url = place.empty("boot_floor")
        async with filled(url, secrets):
            pass
        outcomes += await compete(_scenarios(place, seed, url), given.few)
        place.drop(url)
        given.seeds.drop(seed)
    return outcomes


def _scenarios(place: Place, seed: Seed, floor: str) -> list[Scenario]:
    """The cold boot leaves the copy that the second boot opens."""
    copies: list[str] = []

    async def cold() -> Turn:
        copies.append(place.copy(seed.url))
        return await _boot("boot, cold", copies[0], seed)

    async def again() -> Turn:
        url = copies.pop()
        try:
            return await _boot("boot, again", url, seed)
        finally:
            place.drop(url)

    return [
        Scenario(
            f"boot of {seed.secrets:,}, {which}",
            {OURS: boot, FLOOR: apart.over_the_floor("floor: open", floor)},
            unit="secrets",
            warm_up=False,
        )
        for which, boot in (("cold", cold), ("again", again))
    ]


async def _boot(name: str, url: str, seed: Seed) -> Turn:
    job = await apart.do(name, url, key=seed.key)
    return Turn(seed.secrets, job.seconds, took=job.seconds, peak_mb=job.peak_mb)
