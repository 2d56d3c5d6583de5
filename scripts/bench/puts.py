"""Puts: one at a time, by many callers at once, by several processes."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

import processes
from contenders import Contenders, contenders
from given import Given
from peer import STALE, TUNED
from runs import repeating, repeating_in_threads
from secret_ledger import SecretLedger
from turns import FLOOR, OURS, PEER, Outcome, Scenario, compete
from values import some_value

__all__ = ["measure", "put_some"]

_CALLERS = (64, 256)


async def measure(given: Given) -> list[Outcome]:
    """Measure puts: every contender writes next versions of the same secrets."""
    place, seconds = given.place, given.size.seconds
    async with (
        contenders(place, given.size.secrets, 1, (PEER, TUNED, STALE)) as some,
        processes.workers(place, some.names, seconds) as writing,
    ):
        scenarios = [
            _one_at_a_time(some, seconds),
            *(_many(some, seconds, callers) for callers in _CALLERS),
            Scenario(f"put, {processes.PROCESSES} processes", writing),
        ]
        return await compete(scenarios, given.rounds)


def _one_at_a_time(some: Contenders, seconds: float) -> Scenario:
    return Scenario(
        "put, one at a time",
        {
            OURS: repeating(put_some(some.ledger, some.names), seconds),
            FLOOR: repeating(some.floor.put, seconds),
            **{
                kind: repeating_in_threads(peer.putters(some.names, some_value(), 1), seconds)
                for kind, peer in some.peers.items()
            },
        },
    )


def _many(some: Contenders, seconds: float, callers: int) -> Scenario:
    async def batch() -> None:
        """Puts the writes of all callers into one transaction: nothing is quicker."""
        await some.floor.put_batch(callers)

    putters = {
        kind: some.peers[kind].putters(some.names, some_value(), callers)
        for kind in (PEER, TUNED, STALE)
    }
    return Scenario(
        f"put, {callers} callers",
        {
            OURS: repeating(put_some(some.ledger, some.names), seconds, callers=callers),
            FLOOR: repeating(batch, seconds, each=callers),
            **{kind: repeating_in_threads(each, seconds) for kind, each in putters.items()},
        },
    )


def put_some(ledger: SecretLedger, known: Sequence[str]) -> Callable[[], Awaitable[object]]:
    """Return a function that writes the next version of a random secret."""
    value = some_value()
    return lambda: ledger.put(random.choice(known), value)  # noqa: S311  # guards nothing
