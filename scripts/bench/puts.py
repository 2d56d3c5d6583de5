"""Puts: one at a time, by many callers at once, by several processes."""

# ruff: noqa: S311 - chance picks names here, it guards nothing

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import processes
from floors import Floor, open_floor
from peer import QUICK_CIPHER, STALE, Peer, open_peer
from places import Place
from turns import (
    FLOOR,
    OURS,
    PEER,
    Outcome,
    Run,
    Scenario,
    Turn,
    compete,
    repeat,
    repeat_in_threads,
)
from values import names, some_value

from ledger import Key, Keyring, SecretLedger

__all__ = ["measure", "put_some"]

_CALLERS = (64, 256)


async def measure(place: Place, seconds: float, secrets: int, rounds: int) -> list[Outcome]:
    """Everybody writes next versions of so many secrets."""
    known, value = names(secrets), some_value()
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(
            SecretLedger.open(place.empty("puts"), Keyring.of(Key.generate()))
        )
        for start in range(0, secrets, 1000):
            await ledger.put_many(dict.fromkeys(known[start : start + 1000], value))
        floor = await open_floor(place.empty("puts_floor"))
        stack.push_async_callback(floor.close)
        peers: dict[str, Peer] = {}
        for kind in (PEER, QUICK_CIPHER, STALE):
            peers[kind] = open_peer(place.empty("puts_peer"), kind)
            stack.callback(peers[kind].close)
            peers[kind].fill(known, value)
            for name in known:  # what a long-lived process has in its cache
                peers[kind].get(name)
        scenarios = [
            Scenario(
                "put, one at a time",
                {
                    OURS: lambda: repeat(put_some(ledger, known), seconds),
                    FLOOR: lambda: repeat(floor.put, seconds),
                    **{kind: _peer(each, known, 1, seconds) for kind, each in peers.items()},
                },
            )
        ]
        for callers in _CALLERS:
            lean = {kind: peers[kind] for kind in (PEER, STALE)}
            scenarios.append(
                Scenario(
                    f"put, {callers} callers",
                    {
                        OURS: _together(put_some(ledger, known), seconds, callers),
                        FLOOR: _batches(floor, seconds, callers),
                        **{kind: _peer(p, known, callers, seconds) for kind, p in lean.items()},
                    },
                )
            )
        workers = await stack.enter_async_context(processes.workers(place, known))
        scenarios.append(
            Scenario(
                f"put, {processes.PROCESSES} processes",
                {kind: _by_processes(ask, seconds) for kind, ask in workers.items()},
            )
        )
        return await compete(scenarios, rounds)


def put_some(ledger: SecretLedger, known: Sequence[str]) -> Callable[[], Awaitable[object]]:
    """A write of the next version of one of these secrets."""
    value = some_value()
    return lambda: ledger.put(random.choice(known), value)


def _together(put: Callable[[], Awaitable[object]], seconds: float, callers: int) -> Run:
    return lambda: repeat(put, seconds, callers=callers)


def _batches(floor: Floor, seconds: float, callers: int) -> Run:
    """What the callers want written, in one transaction: nothing is quicker."""
    return lambda: repeat(lambda: floor.put_batch(callers), seconds, each=callers)


def _peer(peer: Peer, known: Sequence[str], callers: int, seconds: float) -> Run:
    async def run() -> Turn:
        return repeat_in_threads(peer.putters(known, some_value(), callers), seconds)

    return run


def _by_processes(ask: processes.Ask, seconds: float) -> Run:
    return lambda: ask(seconds)
