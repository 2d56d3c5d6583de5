"""Keys over time: every newest event, or the whole history, is sealed again under another key.

The floor beside it reads, opens, seals and writes the same number of rows.
"""

from __future__ import annotations

from apart import on_a_copy, over_the_floor
from given import Given
from sealed_floors import filled
from turns import FLOOR, OURS, Outcome, Scenario, compete

__all__ = ["measure"]


async def measure(given: Given) -> list[Outcome]:
    """Measure `rekey` and `migrate`."""
    place, seed = given.place, await given.seeds.ledger(given.size.events // 2, 2)
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
        # The newest events are the second half of the log.
        for name, unit, after in (("rekey", "heads", seed.secrets), ("migrate", "events", 0))
    ]
    outcomes = await compete(scenarios, given.few)
    place.drop(url)
    return outcomes
