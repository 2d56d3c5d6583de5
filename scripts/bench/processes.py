"""Several processes that write to one database at once, each with some callers.

If run as a program, this file is such a process. It opens its contender, says so, and then, at
each request, writes for the requested number of seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from floors import open_floor
from lines import Child, answer, asked, child
from peer import TUNED, new_key, open_peer
from places import Place
from runs import repeating, repeating_in_threads
from secret_ledger import Key, Keyring, SecretLedger
from seeds import fill
from turns import FLOOR, OURS, PEER, Run, Turn
from values import some_value

__all__ = ["CALLERS", "PROCESSES", "workers"]

PROCESSES: Final = 4
CALLERS: Final = 16
"""Callers in each process."""
_APART: Final = 1_000_000
"""Rows that one process of the floor may write, at most."""


@asynccontextmanager
async def workers(
    place: Place, known: Sequence[str], seconds: float
) -> AsyncIterator[Mapping[str, Run]]:
    """Yield a run of each contender: its processes write next versions for `seconds` seconds.

    The processes have opened their contender. In ours and the peer, each secret has a version 1.
    """
    key, cipher_key, value = Key.generate(), new_key(), some_value()
    urls = {kind: place.empty("processes") for kind in (OURS, FLOOR, PEER, TUNED)}
    async with SecretLedger.open(urls[OURS], Keyring.of(key)) as ledger:
        await fill(ledger, known)
    for kind in (PEER, TUNED):
        peer = open_peer(urls[kind], kind, cipher_key)
        peer.fill(known, value)
        peer.close()
    given = {"key": key.text().reveal_text(), "cipher_key": cipher_key}
    async with AsyncExitStack() as stack:
        found: dict[str, Run] = {}
        for kind, url in urls.items():
            children = [
                await stack.enter_async_context(
                    _writer({
                        **given,
                        "kind": kind,
                        "url": url,
                        "number": number,
                        "names": known[number::PROCESSES],
                    })
                )
                for number in range(PROCESSES)
            ]  # fmt: skip
            found[kind] = _asking(children, seconds)
        yield found


def _asking(children: Sequence[Child], seconds: float) -> Run:
    async def run() -> Turn:
        told = await asyncio.gather(*(child.tell(seconds) for child in children))
        turns = [Turn(**each) for each in told]
        return Turn(sum(turn.done for turn in turns), max(turn.seconds for turn in turns))

    return run


@asynccontextmanager
async def _writer(given: Mapping[str, Any]) -> AsyncIterator[Child]:
    async with child(Path(__file__)) as process:
        await process.tell(given)
        yield process


# --- in the child --------------------------------------------------------------------


async def _serve() -> None:
    given = await asked()
    async with AsyncExitStack() as stack:
        writing = await _OPENED[given["kind"]](given, stack)
        answer("ready")
        while (seconds := await asked()) is not None:
            answer(asdict(await writing(seconds)()))


Writing = Callable[[float], Run]
"""Makes a run that lasts the given number of seconds."""


async def _ours(given: Mapping[str, Any], stack: AsyncExitStack) -> Writing:
    keyring = Keyring.of(Key.parse(given["key"]))
    ledger = await stack.enter_async_context(
        SecretLedger.open(given["url"], keyring, node=f"writer-{given['number']}")
    )
    known, value = given["names"], some_value()

    async def put() -> None:
        await ledger.put(random.choice(known), value)  # noqa: S311  # guards nothing

    return lambda seconds: repeating(put, seconds, callers=CALLERS)


async def _floor(given: Mapping[str, Any], stack: AsyncExitStack) -> Writing:
    floor = await open_floor(given["url"], first=given["number"] * _APART)
    stack.push_async_callback(floor.close)
    return lambda seconds: repeating(lambda: floor.put_batch(CALLERS), seconds, each=CALLERS)


async def _peer(given: Mapping[str, Any], stack: AsyncExitStack) -> Writing:
    peer = open_peer(given["url"], given["kind"], given["cipher_key"])
    stack.callback(peer.close)
    putters = peer.putters(given["names"], some_value(), CALLERS)
    return lambda seconds: repeating_in_threads(putters, seconds)


_OPENED: Final = {OURS: _ours, FLOOR: _floor, PEER: _peer, TUNED: _peer}


if __name__ == "__main__":
    asyncio.run(_serve())
