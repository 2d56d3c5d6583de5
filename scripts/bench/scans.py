"""Long jobs over a large ledger: their peak memory, and how long they hold up the event loop.

Of several runs of a job the one with the lowest longest gap counts, for a busy machine makes
gaps of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import jobs
from jobs import Job
from places import Place
from seeds import Seeds

from ledger import Key

__all__ = ["GAP_LIMIT", "measure"]

GAP_LIMIT = 20
"""Milliseconds that the event loop may be held up while verify runs."""


async def measure(place: Place, seeds: Seeds, events: int, times: int) -> AsyncIterator[list[Job]]:
    """Run each job over a copy of a ledger of that size, that often; the run that counts comes
    first."""
    seed = await seeds.ledger(events // 2, 2)
    for name in jobs.JOBS:
        runs: list[Job] = []
        for _ in range(times):
            url = place.copy(seed.url)
            new_key = Key.generate() if name in jobs.UNDER_A_NEW_KEY else None
            runs.append(await jobs.do(name, url, key=seed.key, new_key=new_key, gaps=True))
            place.drop(url)
        yield sorted(runs, key=lambda job: job.gap_max_ms or 0.0)
