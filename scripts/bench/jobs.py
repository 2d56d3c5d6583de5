"""Long jobs over a whole ledger, each in a process of its own, whose peak of memory is then its
own too.

While one runs, a task asks to be woken each millisecond, if it is told to; a gap is the time
from one waking to the next. A busy machine makes gaps of its own, as the job `idle` shows: so
of each gap there is also the part for which this very process was at work (its processor time,
of all its threads).

Run as a program, this file is such a process.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import text

from ledger import Key, Keyring, SecretLedger
from projections import SysSecret, rebuild

__all__ = ["BOOTS", "FLOORS", "JOBS", "UNDER_A_NEW_KEY", "Job", "do"]

TICK: Final = 0.001


@dataclass(frozen=True, slots=True)
class Job:
    """One job, done."""

    name: str
    done: int
    """Events, heads or secrets; of the floor, rows."""
    seconds: float
    peak_mb: float
    gap_max_ms: float | None
    gap_p99_ms: float | None
    """The gap that 1 % of the wakings exceed."""
    own_max_ms: float | None
    """The longest part of a gap that was this process's own work."""


async def do(
    name: str,
    url: str,
    *,
    key: Key | None = None,
    new_key: Key | None = None,
    after: int = 0,
    gaps: bool = False,
) -> Job:
    """Do a job over the ledger (or the floor's table) at this URL, in a new process.

    `new_key` is what the ledger rotates to; `after` the position that the floor begins at.
    """
    given = {
        "name": name,
        "url": url,
        "key": key and key.text().reveal_text(),
        "new_key": new_key and new_key.text().reveal_text(),
        "after": after,
        "gaps": gaps,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
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


# --- in the child --------------------------------------------------------------------


async def _idle(ledger: SecretLedger) -> int:
    await asyncio.sleep(5)
    return 0


async def _verify_full(ledger: SecretLedger) -> int:
    report = await ledger.verify("full")
    report.raise_if_not_ok()
    return report.events


async def _verify_latest(ledger: SecretLedger) -> int:
    report = await ledger.verify("latest")
    report.raise_if_not_ok()
    return report.events


async def _list(ledger: SecretLedger) -> int:
    done = 0
    async for _ in ledger.list():
        done += 1
    return done


async def _rebuild(ledger: SecretLedger) -> int:
    """The whole table, from nothing: its rows are gone, its checkpoint is not."""
    prefix = ledger.database.statements.prefix
    await ledger.database.run(
        lambda c: c.execute(text(f"DELETE FROM {prefix}secret_current")),  # noqa: S608
        "write",
    )
    return (await rebuild(ledger.database, SysSecret())).added


async def _rekey(ledger: SecretLedger) -> int:
    report = await ledger.rekey()
    report.raise_if_not_ok()
    return report.rekeyed


async def _migrate(ledger: SecretLedger) -> int:
    return (await ledger.migrate()).copied


JOBS: Final[dict[str, Callable[[SecretLedger], Awaitable[int]]]] = {
    "idle": _idle,
    "verify full": _verify_full,
    "verify latest": _verify_latest,
    "list": _list,
    "projections rebuild": _rebuild,
    "rekey": _rekey,
    "migrate": _migrate,
}
UNDER_A_NEW_KEY: Final = ("rekey", "migrate")
FLOORS: Final = ("floor: open", "floor: reseal")
BOOTS: Final[dict[str, dict[str, Any]]] = {"boot, cold": {"verify": "latest"}, "boot, again": {}}
"""How each opens: the first proves every secret, the second does what it does by default."""


async def _do(given: dict[str, Any]) -> Job:
    name, watch = given["name"], _gaps if given["gaps"] else _no_gaps
    if name in FLOORS:
        # Not at the top: what it imports would count as memory of ours.
        from sealed_floors import open_sealed_floor

        async with open_sealed_floor(given["url"]) as floor:
            await floor.empty_target()
            async with watch() as gaps:
                began = time.monotonic()
                if name == "floor: open":
                    done = await floor.open_all()
                else:
                    done = await floor.reseal(given["after"])
                seconds = time.monotonic() - began
    elif name in BOOTS:
        async with watch() as gaps:
            began = time.monotonic()
            async with SecretLedger.open(given["url"], _keyring(given), **BOOTS[name]):
                done, seconds = 0, time.monotonic() - began
    else:
        async with SecretLedger.open(given["url"], _keyring(given), verify="control") as ledger:
            if given["new_key"] is not None:
                await ledger.rotate()
            async with watch() as gaps:
                began = time.monotonic()
                done = await JOBS[name](ledger)
                seconds = time.monotonic() - began
    longest = sorted(gap for gap, _ in gaps)
    return Job(
        name,
        done,
        seconds,
        peak_mb=_peak() / 1e6,
        gap_max_ms=longest[-1] * 1e3 if gaps else None,
        gap_p99_ms=longest[len(longest) * 99 // 100] * 1e3 if gaps else None,
        own_max_ms=max(min(gap, own) for gap, own in gaps) * 1e3 if gaps else None,
    )


def _keyring(given: dict[str, Any]) -> Keyring:
    key = Key.parse(given["key"])
    if given["new_key"] is None:
        return Keyring.of(key)
    return Keyring.of(Key.parse(given["new_key"]), previous=[key])


Gaps = list[tuple[float, float]]
"""Seconds between wakings of the event loop, and of processor time that the process took."""


def _no_gaps() -> AbstractAsyncContextManager[Gaps]:
    return nullcontext([])


@asynccontextmanager
async def _gaps() -> AsyncIterator[Gaps]:
    """The gaps while the block runs."""
    gaps: Gaps = []
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
    print(json.dumps(asdict(asyncio.run(_do(json.load(sys.stdin))))))
