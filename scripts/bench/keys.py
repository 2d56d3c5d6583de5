"""Keys over time: every head, and the whole history, sealed again under another key.

Ours beside the floor that reads, opens, seals and writes the same number of rows.
"""

from __future__ import annotations

from apart import on_a_copy, over_the_floor
from places import Place
from sealed_floors import filled
from seeds import Seeds
from turns import FLOOR, OURS, Outcome, Scenario, compete

__all__ = ["measure"]


async def measure(place: Place, seeds: Seeds, events: int, rounds: int) -> list[Outcome]:
    """`rekey` and `migrate` over so many events, two versions a secret."""
    seed = await seeds.ledger(events // 2, 2)
    url = place.empty("keys_floor")
    async with filled(url, seed.events):
        pass
    scenarios = [
        Scenario(
            name,
            {
                OURS: on_a_copy(name, place, seed),
                FLOOR: over_the_floor("floor: reseal", url, after=after),
            },
            unit=unit,
            warm_up=False,
        )
        # The heads are the second half of the log.
        for name, unit, after in (("rekey", "heads", seed.secrets), ("migrate", "events", 0))
    ]
    outcomes = await compete(scenarios, rounds)
    place.drop(url)
    return outcomes
