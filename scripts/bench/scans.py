"""Long jobs over a large ledger: their peak memory, and how long they hold up the event loop.

Of several runs of a job, the run with the shortest longest gap counts: a busy machine makes gaps
of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from apart import Job, do
from given import Given
from progress import clear, say

__all__ = ["GAP_LIMIT", "measure"]

GAP_LIMIT: Final = 20
"""Milliseconds for which verify may hold up the event loop."""
_JOBS: Final = (
    "idle",
    "verify full",
    "verify latest",
    "list",
    "projection rebuild",
    "rekey",
    "migrate",
)


async def measure(given: Given) -> AsyncIterator[list[Job]]:
    """Run each job a few times, each time on a new copy. Yields the runs, best run first."""
    place, seed = given.place, await given.seeds.ledger(given.size.events // 2, 2)
    for name in _JOBS:
        runs: list[Job] = []
        for number in range(given.few):
            say(f"run {number + 1} of {given.few}: {name}")
            url = place.copy(seed.url)
            runs.append(await do(name, url, key=seed.key, gaps=True))
            place.drop(url)
        clear()
        yield sorted(runs, key=lambda job: job.gap_max_ms or 0.0)
