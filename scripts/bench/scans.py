"""Long jobs over a large ledger: their peak memory, and how long they hold up the event loop.

Of several runs of a job the one with the lowest longest gap counts, for a busy machine makes
gaps of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from apart import Job, do
from places import Place
from seeds import Seeds

__all__ = ["GAP_LIMIT", "measure"]

GAP_LIMIT: Final = 20
"""Milliseconds that the event loop may be held up while verify runs."""
_JOBS: Final = (
    "idle",
    "verify full",
    "verify latest",
    "list",
    "projection rebuild",
    "rekey",
    "migrate",
)


async def measure(place: Place, seeds: Seeds, events: int, times: int) -> AsyncIterator[list[Job]]:
    """Each job over a copy of a ledger of that size, that often; the run that counts first."""
    seed = await seeds.ledger(events // 2, 2)
    for name in _JOBS:
        runs: list[Job] = []
        for _ in range(times):
            url = place.copy(seed.url)
            runs.append(await do(name, url, key=seed.key, gaps=True))
            place.drop(url)
        yield sorted(runs, key=lambda job: job.gap_max_ms or 0.0)
