"""Long operations over a large ledger: their peak memory, and how long they hold up the loop.

Each runs in a process of its own, whose peak is then its own too. While it runs, a task asks
to be woken each millisecond; a gap is the time from one waking to the next. A busy machine
makes gaps of its own, as the job `idle` shows: so of each gap there is also the part for
which this very process was at work (its processor time, of all its threads), and of several
runs of a job the one with the lowest longest gap counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from places import Place
from rates import seed
from sqlalchemy import text

from ledger import Key, Keyring, SecretLedger
from projections import SysSecret, rebuild

__all__ = ["Scan", "measure"]

TICK: Final = 0.001


@dataclass(frozen=True, slots=True)
class Scan:
    """One job over a whole ledger."""

    job: str
    seconds: float
    peak_mb: float
    gap_max_ms: float
    gap_p99_ms: float
    """The gap that 1 % of the wakings exceed."""
    own_max_ms: float
    """The longest part of a gap that was this process's own work."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(place: Place, events: int, times: int) -> Iterator[list[Scan]]:
    """Seed a ledger, then run each job over it, that often; the run that counts comes first."""
    given = {
        "url": place.empty("scanned"),
        "key": Key.generate().text().reveal_text(),
        "events": events,
    }
    yield [_in_child("seed", given)]
    for job in _JOBS:
        runs = [_in_child(job, given) for _ in range(times)]
        yield sorted(runs, key=lambda scan: scan.gap_max_ms)


def _in_child(job: str, given: dict[str, Any]) -> Scan:
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps({"job": job, **given}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Scan(**json.loads(done.stdout))


async def _idle(ledger: SecretLedger) -> None:
    await asyncio.sleep(5)


async def _verify_full(ledger: SecretLedger) -> None:
    (await ledger.verify("full")).raise_if_not_ok()


async def _verify_latest(ledger: SecretLedger) -> None:
    (await ledger.verify("latest")).raise_if_not_ok()


async def _list(ledger: SecretLedger) -> None:
    async for _ in ledger.list():
        pass


async def _rebuild(ledger: SecretLedger) -> None:
    """The whole table, from nothing: its rows are gone, its checkpoint is not."""
    prefix = ledger.database.statements.prefix
    await ledger.database.run(
        lambda c: c.execute(text(f"DELETE FROM {prefix}secret_current")),  # noqa: S608
        "write",
    )
    await rebuild(ledger.database, SysSecret())


_JOBS: Final[dict[str, Callable[[SecretLedger], Awaitable[None]]]] = {
    "idle": _idle,
    "verify full": _verify_full,
    "verify latest": _verify_latest,
    "list": _list,
    "projections rebuild": _rebuild,
}


async def _run(job: str, url: str, key: str, events: int) -> Scan:
    async with SecretLedger.open(url, Keyring.of(Key.parse(key)), verify="control") as ledger:
        began = time.monotonic()
        async with _gaps() as gaps:
            if job == "seed":
                await seed(ledger, events)
            else:
                await _JOBS[job](ledger)
        seconds = time.monotonic() - began
    longest = sorted(gap for gap, _ in gaps)
    return Scan(
        job=job,
        seconds=seconds,
        peak_mb=_peak() / 1e6,
        gap_max_ms=longest[-1] * 1e3,
        gap_p99_ms=longest[len(longest) * 99 // 100] * 1e3,
        own_max_ms=max(min(gap, own) for gap, own in gaps) * 1e3,
    )


@asynccontextmanager
async def _gaps() -> Any:
    """Seconds between wakings of the event loop while the block runs, and seconds of
    processor time that the process took meanwhile."""
    gaps: list[tuple[float, float]] = []
    loop = asyncio.get_running_loop()

    async def tick() -> None:
        before, used_before = loop.time(), time.process_time()
        while True:
            await asyncio.sleep(TICK)
            now, used = loop.time(), time.process_time()
            gaps.append((now - before, used - used_before))
            before, used_before = now, used

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        yield gaps
        await asyncio.sleep(2 * TICK)  # so that a gap at the very end is seen
    finally:
        ticking.cancel()


def _peak() -> float:
    """Bytes of memory at the peak of this process."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage's figure: on Linux that one begins with the parent's.
        line = next(x for x in status.read_text("utf-8").splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    os.environ.pop("OS_SECRET_LEDGER_ID", None)
    print(json.dumps(asyncio.run(_run(**json.load(sys.stdin))).as_json()))
