"""Long jobs over a large ledger: their peak memory, and how long they hold up the event loop.

Of several runs of a job the one with the lowest longest gap counts, for a busy machine makes
gaps of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from apart import Job, do
from given import Given
from progress import clear, say

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


async def measure(given: Given) -> AsyncIterator[list[Job]]:
    """Each job a few times, each time over a copy of the ledger; the run that counts first."""
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
