"""The cost of a fleet for its writers: heartbeats and reads of the registry, beside the writes.

The nodes are open ledgers in one process beside the writer's. Each has connections of its own, as
on a machine of its own. The nodes beat more often than by default, and so does the node that
reads the registry: else the cost would drown in the noise. The printed cost is for the default
interval. Turns with and without the nodes alternate, so that a busy machine and a growing log
affect both.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from given import Given
from puts import put_some
from runs import repeating
from secret_ledger import Key, Keyring, SecretLedger
from secret_ledger.session.opened import HEARTBEAT
from turns import Run, Spread
from values import names

__all__ = ["COST_LIMIT", "NODES", "SOONER", "FleetCost", "measure"]

COST_LIMIT: Final = 0.02
"""Share of the writes that a fleet's heartbeats and reads of the registry may cost."""
NODES: Final = 64
CALLERS: Final = 64
SOONER: Final = 20
"""How many times as often as by default the nodes beat, and the registry is read."""
LOOK: Final = 2.0
"""Seconds between two reads of the registry: the default of `nodes --watch`."""
SILENT: Final = 1e6
"""Seconds between two heartbeats of a node: so many that it beats only on request."""


@dataclass(frozen=True, slots=True)
class FleetCost:
    """Writes a second without the fleet and beside it."""

    name: str
    alone: Spread
    beside: Spread
    cost: Spread
    """Share of the writes that the fleet costs, at the default interval."""
    beats: float
    """Heartbeats a second during the measurement."""
    late: float
    """Seconds that one heartbeat took: the 95th percentile."""
    failed: int
    own: float
    """Seconds of a node's processor for one heartbeat. If the node is another machine, no writer
    pays for them."""


@dataclass
class _Beats:
    took: list[float] = field(default_factory=list)
    failed: int = 0
    looks: int = 0
    own: float = 0.0


async def measure(given: Given) -> list[FleetCost]:
    """Measure one writer, then many callers, in turns with and without the fleet."""
    key = Key.generate()
    url, seconds = given.place.empty("fleet"), given.size.seconds
    async with SecretLedger.open(url, Keyring.of(key)) as ledger, _fleet(url, key) as told:
        put = put_some(ledger, names(1000))
        return [
            await _in_turns(name, repeating(put, seconds, callers=callers), told, given.rounds)
            for name, callers in (("put, one writer", 1), (f"put, {CALLERS} callers", CALLERS))
        ]


OnProgress = Callable[[str], Awaitable[_Beats]]


async def _in_turns(name: str, run: Run, tell: OnProgress, rounds: int) -> FleetCost:
    pairs: list[tuple[float, float]] = []
    turns: list[_Beats] = []

    async def beside() -> float:
        await tell("on")
        rate = (await run()).rate
        turns.append(await tell("off"))
        return rate

    await run()
    for number in range(rounds):
        if number % 2:  # the first turn of a round may find the disk busy
            with_them = await beside()
            alone = (await run()).rate
        else:
            alone = (await run()).rate
            with_them = await beside()
        pairs.append((alone, with_them))
    took = sorted(t for turn in turns for t in turn.took) or [0.0]
    return FleetCost(
        name,
        alone=Spread.of([alone for alone, _ in pairs]),
        beside=Spread.of([with_them for _, with_them in pairs]),
        cost=Spread.of([(1 - with_them / alone) / SOONER for alone, with_them in pairs]),
        beats=NODES * SOONER / HEARTBEAT,
        late=took[len(took) * 95 // 100],
        failed=sum(turn.failed for turn in turns),
        own=sum(turn.own for turn in turns) / len(took),
    )


@asynccontextmanager
async def _fleet(url: str, key: Key) -> Any:
    """Runs the nodes in a process of their own. Yields a function that starts and stops them."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, __file__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )  # fmt: skip
    asked, answers = child.stdin, child.stdout
    if asked is None or answers is None:
        raise RuntimeError("the process of the nodes has no pipes")

    async def tell(word: str) -> _Beats:
        asked.write(f"{word}\n".encode())
        line = await answers.readline()
        if not line:
            raise RuntimeError("the process of the nodes has ended")
        return _Beats(**json.loads(line))

    try:
        await tell(json.dumps({"url": url, "key": key.text().reveal_text()}))
        yield tell
        asked.close()
        await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


# --- in the child --------------------------------------------------------------------


async def _serve() -> None:
    given = json.loads(await _word())
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(_node(given["url"], given["key"], number))
            for number in range(NODES)
        ]
        _answer(_Beats())
        while await _word() == "on":
            done = _Beats()
            used = time.process_time()
            jobs = [asyncio.create_task(_beat(node, done)) for node in nodes]
            jobs.append(asyncio.create_task(_look(nodes[0], done)))
            _answer(_Beats())
            await _word()
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            done.own = time.process_time() - used
            _answer(done)


@asynccontextmanager
async def _node(url: str, key: str, number: int) -> Any:
    async with AsyncExitStack() as stack:
        where: str | AsyncEngine = url
        if url.startswith("postgresql"):
            # 64 pools of the usual size would need more connections than a server has.
            where = create_async_engine(url, pool_size=1, max_overflow=0)
            stack.push_async_callback(where.dispose)
        yield await stack.enter_async_context(
            SecretLedger.open(
                where,
                Keyring.of(Key.parse(key)),
                verify="control",
                node=f"node-{number:02}",
                heartbeat=SILENT,
            )
        )


async def _beat(node: SecretLedger, done: _Beats) -> None:
    loop = asyncio.get_running_loop()
    every = HEARTBEAT / SOONER
    await asyncio.sleep(random.random() * every)  # noqa: S311  # nodes don't start in step
    while True:
        began = loop.time()
        await node._session.announce()
        done.took.append(loop.time() - began)
        done.failed += bool(node._presence and node._presence.failure)
        await asyncio.sleep(every)


async def _look(node: SecretLedger, done: _Beats) -> None:
    while True:
        await node.nodes()
        done.looks += 1
        await asyncio.sleep(LOOK / SOONER)


async def _word() -> str:
    line: str = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return line.rstrip("\n")


def _answer(done: _Beats) -> None:
    print(json.dumps(asdict(done)), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
