"""Long jobs over a whole ledger. If run as a program, this file does one job.

The process runs only that job, so its peak of memory is the job's. On request, a task asks to be
woken each millisecond while the job runs. A gap is the time from one waking to the next. A busy
machine makes gaps of its own, as the job `idle` shows. So each gap also has the processor time
that this process used meanwhile, in all its threads.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from secret_ledger import Key, Keyring, SecretLedger
from secret_ledger.rules.findings import OpenLevel
from secret_ledger_projections import SysSecret, rebuild

if TYPE_CHECKING:
    from sealed_floors import SealedFloor

_TICK: Final = 0.001


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
    """Rebuilds the whole table: its rows are deleted before, its checkpoint is not."""
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


_JOBS: Final[dict[str, Callable[[SecretLedger], Awaitable[int]]]] = {
    "idle": _idle,
    "verify full": _verify_full,
    "verify latest": _verify_latest,
    "list": _list,
    "projection rebuild": _rebuild,
    "rekey": _rekey,
    "migrate": _migrate,
}
_FLOORS: Final[dict[str, Callable[[SealedFloor, int], Awaitable[int]]]] = {
    "floor: open": lambda floor, _: floor.open_all(),
    "floor: fold": lambda floor, after: floor.fold(after),
    "floor: reseal": lambda floor, after: floor.reseal(after),
}
_BOOTS: Final[dict[str, OpenLevel]] = {"boot, cold": "latest", "boot, again": "incremental"}
"""Level of each boot: the first boot proves every secret, the second builds on that proof."""

Watch = AbstractAsyncContextManager[object]
Took = tuple[int, float]
"""Number of things done, and the seconds that they took."""


async def _do(given: dict[str, Any]) -> dict[str, Any]:
    name = given["name"]
    gaps: list[tuple[float, float]] = []
    watch = _gaps(gaps) if given["gaps"] else nullcontext()
    if name in _FLOORS:
        done, seconds = await _do_floor(given, watch)
    elif name in _BOOTS:
        done, seconds = await _boot(given, watch)
    else:
        done, seconds = await _do_ours(given, watch)
    longest = sorted(gap for gap, _ in gaps)
    return {
        "name": name,
        "done": done,
        "seconds": seconds,
        "peak_mb": _peak() / 1e6,
        "gap_max_ms": longest[-1] * 1e3 if gaps else None,
        "gap_p99_ms": longest[len(longest) * 99 // 100] * 1e3 if gaps else None,
        "own_max_ms": max(min(gap, own) for gap, own in gaps) * 1e3 if gaps else None,
    }


async def _do_ours(given: dict[str, Any], watch: Watch) -> Took:
    async with SecretLedger.open(given["url"], _keyring(given), verify="control") as ledger:
        if given["new_key"] is not None:
            await ledger.rotate()
        async with watch:
            began = time.monotonic()
            done = await _JOBS[given["name"]](ledger)
            return done, time.monotonic() - began


async def _boot(given: dict[str, Any], watch: Watch) -> Took:
    opening = SecretLedger.open(given["url"], _keyring(given), verify=_BOOTS[given["name"]])
    async with watch:
        began = time.monotonic()
        async with opening:
            return 1, time.monotonic() - began


async def _do_floor(given: dict[str, Any], watch: Watch) -> Took:
    # Not at the top: its imports would count as memory of ours.
    from sealed_floors import open_sealed_floor

    async with open_sealed_floor(given["url"]) as floor:
        await floor.empty_target()
        async with watch:
            began = time.monotonic()
            done = await _FLOORS[given["name"]](floor, given["after"])
            return done, time.monotonic() - began


def _keyring(given: dict[str, Any]) -> Keyring:
    key = Key.parse(given["key"])
    if given["new_key"] is None:
        return Keyring.of(key)
    return Keyring.of(Key.parse(given["new_key"]), previous=[key])


@asynccontextmanager
async def _gaps(gaps: list[tuple[float, float]]) -> AsyncIterator[None]:
    """Notes the gaps while the block runs: seconds between two wakings of the event loop, and
    seconds of processor time that the process used meanwhile."""
    loop = asyncio.get_running_loop()

    async def tick() -> None:
        before, used_before = loop.time(), time.process_time()
        while True:
            await asyncio.sleep(_TICK)
            now, used = loop.time(), time.process_time()
            gaps.append((now - before, used - used_before))
            before, used_before = now, used

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        yield
        await asyncio.sleep(2 * _TICK)  # so that a gap at the very end is noted
    finally:
        ticking.cancel()


def _peak() -> float:
    """Bytes of memory at the peak of this process."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux its figure begins with the parent's.
        line = next(x for x in status.read_text("utf-8").splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_do(json.load(sys.stdin)))))
