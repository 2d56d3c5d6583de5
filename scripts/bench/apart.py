"""Long jobs in processes of their own: one that is started for each, see `jobs`."""

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
    """One job, done."""

    name: str
    done: int
    """Events, heads or secrets; of the floor, rows; of a boot, one."""
    seconds: float
    peak_mb: float
    gap_max_ms: float | None
    gap_p99_ms: float | None
    """The gap that 1 % of the wakings exceed."""
    own_max_ms: float | None
    """The longest part of a gap that was this process's own work."""


async def do(
    name: str, url: str, *, key: Key | None = None, after: int = 0, gaps: bool = False
) -> Job:
    """Do a job over the ledger at this URL, or over the rows of the floor's table that come
    after a position."""
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
    """A turn of ours, on a copy that is made for it."""

    async def run() -> Turn:
        url = place.copy(seed.url)
        try:
            return _turn(await do(name, url, key=seed.key))
        finally:
            place.drop(url)

    return run


def over_the_floor(name: str, url: str, *, after: int = 0) -> Run:
    """A turn of the floor."""

    async def run() -> Turn:
        return _turn(await do(name, url, after=after))

    return run


def _turn(job: Job) -> Turn:
    return Turn(job.done, job.seconds, took=job.seconds, peak_mb=job.peak_mb)
