"""Long jobs, each in a process of its own that runs `jobs`."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from places import Place
from secret_ledger import Key
from seeds import Seed
from turns import Run, Turn

__all__ = ["Job", "do", "on_a_copy", "over_the_floor"]

_PROGRAM = Path(__file__).with_name("jobs.py")
_UNDER_A_NEW_KEY = ("rekey", "migrate")


@dataclass(frozen=True, slots=True)
class Job:
    """The figures of one job."""

    name: str
    done: int
    """Number of events, newest events or secrets; of the floor, rows; of a boot, 1."""
    seconds: float
    peak_mb: float
    gap_max_ms: float | None
    gap_p99_ms: float | None
    """Milliseconds of the gap that 1 % of the gaps exceed."""
    own_max_ms: float | None
    """Milliseconds: the longest part of a gap that was this process's own work."""


async def do(
    name: str, url: str, *, key: Key | None = None, after: int = 0, gaps: bool = False
) -> Job:
    """Do a job over the ledger at `url`, or over the floor's rows after position `after`.

    `gaps`: note the gaps of the event loop too. Raises RuntimeError if the process fails.
    """
    new_key = Key.generate() if name in _UNDER_A_NEW_KEY else None
    given = {
        "name": name,
        "url": url,
        "key": key and key.text().reveal_text(),
        "new_key": new_key and new_key.text().reveal_text(),
        "after": after,
        "gaps": gaps,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, _PROGRAM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        told, _ = await process.communicate(json.dumps(given).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"the job {name!r} ended with {process.returncode}")
    return Job(**json.loads(told))


def on_a_copy(name: str, place: Place, seed: Seed) -> Run:
    """Make a run of ours. Each turn works on a copy of its own."""

    async def run() -> Turn:
        url = place.copy(seed.url)
        try:
            return _turn(await do(name, url, key=seed.key))
        finally:
            place.drop(url)

    return run


def over_the_floor(name: str, url: str, *, after: int = 0) -> Run:
    """Make a run of the floor."""

    async def run() -> Turn:
        return _turn(await do(name, url, after=after))

    return run


def _turn(job: Job) -> Turn:
    return Turn(job.done, job.seconds, took=job.seconds, peak_mb=job.peak_mb)
