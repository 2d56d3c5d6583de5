"""Several processes that write to one database at once, each with some callers.

Run as a program, this file is one of them: it opens its contender, says so, and writes for as
long as it is told, each time it is told.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

from floors import open_floor
from peer import TUNED, new_key, open_peer
from places import Place
from runs import repeating, repeating_in_threads
from seeds import fill
from turns import FLOOR, OURS, PEER, Run, Turn
from values import some_value

from ledger import Key, Keyring, SecretLedger

__all__ = ["CALLERS", "PROCESSES", "workers"]

PROCESSES: Final = 4
CALLERS: Final = 16
"""In each of them."""
_APART: Final = 1_000_000
"""Rows that one process of the floor may write."""


@asynccontextmanager
async def workers(
    place: Place, known: Sequence[str], seconds: float
) -> AsyncIterator[Mapping[str, Run]]:
    """A turn of each contender, whose processes are ready to write the next versions of these
    secrets for so many seconds."""
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
                    _child({
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


def _asking(children: Sequence[_Child], seconds: float) -> Run:
    async def run() -> Turn:
        turns = await asyncio.gather(*(child.ask(seconds) for child in children))
        return Turn(sum(turn.done for turn in turns), max(turn.seconds for turn in turns))

    return run


class _Child:
    """One process, and the lines that are spoken with it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def tell(self, word: Any) -> Any:
        asked, answers = self.process.stdin, self.process.stdout
        if asked is None or answers is None:
            raise RuntimeError("a writing process has no pipes")
        asked.write(json.dumps(word).encode() + b"\n")
        line = await answers.readline()
        if not line:
            raise RuntimeError("a writing process has ended")
        return json.loads(line)

    async def ask(self, seconds: float) -> Turn:
        return Turn(**await self.tell(seconds))


@asynccontextmanager
async def _child(given: Mapping[str, Any]) -> AsyncIterator[_Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    child = _Child(process)
    try:
        await child.tell(given)
        yield child
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# --- in the child --------------------------------------------------------------------


async def _serve() -> None:
    given = json.loads(await _line())
    async with AsyncExitStack() as stack:
        writing = await _OPENED[given["kind"]](given, stack)
        _answer("ready")
        while line := await _line():
            _answer(asdict(await writing(json.loads(line))()))


Writing = Callable[[float], Run]
"""A turn of so many seconds."""


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


async def _line() -> str:
    line: str = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return line


def _answer(word: Any) -> None:
    print(json.dumps(word), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
