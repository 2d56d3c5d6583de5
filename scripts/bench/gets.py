"""Gets: the newest version from the database and from memory, an older version, and the list."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from contenders import Contenders, contenders
from given import Given
from peer import CACHED, STALE, TUNED, Peer
from runs import once, once_blocking, repeating, repeating_in_threads
from secret_ledger import SecretLedger
from turns import FLOOR, OURS, PEER, Outcome, Run, Scenario, compete

__all__ = ["measure"]

_STALENESS: Final = 1.0
"""Seconds that the view in memory may be behind."""
_FRESH: Final = f"{OURS}: always fresh"


async def measure(given: Given) -> list[Outcome]:
    """Measure gets: every contender reads the same secrets, which have two versions each."""
    seconds, kinds = given.size.seconds, (PEER, TUNED, CACHED, STALE)
    async with (
        contenders(given.place, given.size.secrets, 2, kinds) as some,
        AsyncExitStack() as stack,
    ):
        scenarios = [
            _latest(some, seconds),
            await _in_memory(some, seconds, stack),
            _by_version(some, seconds),
            _list(some),
        ]
        return await compete(scenarios, given.rounds)


def _latest(some: Contenders, seconds: float) -> Scenario:
    return Scenario(
        "get latest, always fresh",
        {
            OURS: _ours(some.ledger, some.names, seconds),
            FLOOR: repeating(some.floor.get, seconds),
            **{
                kind: _peer(some.peers[kind], some.names, seconds) for kind in (PEER, TUNED, CACHED)
            },
        },
    )


async def _in_memory(some: Contenders, seconds: float, stack: AsyncExitStack) -> Scenario:
    """The peer takes part as it comes, and with its cache, which holds values in clear. The cache
    asks the database for newer events at each get, or never."""
    ours = {}
    for name, staleness in ((OURS, _STALENESS), (_FRESH, 0.0)):
        ledger = await stack.enter_async_context(
            SecretLedger.open(some.url, some.keyring, max_staleness=staleness)
        )
        for each in some.names:
            await ledger.get(each)
        ours[name] = _ours(ledger, some.names, seconds)
    return Scenario(
        "get, in memory",
        {
            **ours,
            **{
                kind: _peer(some.peers[kind], some.names, seconds) for kind in (PEER, CACHED, STALE)
            },
        },
    )


def _by_version(some: Contenders, seconds: float) -> Scenario:
    return Scenario(
        "get by version",
        {
            OURS: _ours(some.ledger, some.names, seconds, version=1),
            FLOOR: repeating(some.floor.get, seconds),
            **{
                kind: _peer(some.peers[kind], some.names, seconds, version=1)
                for kind in (PEER, TUNED)
            },
        },
    )


def _list(some: Contenders) -> Scenario:
    async def ours() -> int:
        done = 0
        async for _ in some.ledger.list():
            done += 1
        return done

    return Scenario(
        f"list {len(some.names):,}",
        {
            OURS: once(ours),
            FLOOR: once(some.floor.list),
            **{kind: once_blocking(some.peers[kind].list) for kind in (PEER, TUNED)},
        },
        unit="names",
    )


def _ours(
    ledger: SecretLedger, known: Sequence[str], seconds: float, version: int | None = None
) -> Run:
    async def get() -> None:
        await ledger.get(random.choice(known), version=version)  # noqa: S311  # guards nothing

    return repeating(get, seconds)


def _peer(peer: Peer, known: Sequence[str], seconds: float, version: int | None = None) -> Run:
    def get() -> None:
        peer.get(random.choice(known), version=version)  # noqa: S311  # guards nothing

    return repeating_in_threads([get], seconds)
