"""Walks: the chain from the newest event down to an old version proves the old version.

The floor beside it reads as many rows in pages and hashes each row.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from given import Given
from progress import say
from runs import repeating
from sealed_floors import SealedFloor, filled
from secret_ledger import Key, Keyring, SecretLedger
from turns import FLOOR, OURS, Outcome, Scenario, compete
from values import some_value

__all__ = ["measure"]

_NAME: Final = "walked"
_BATCH: Final = 1000


async def measure(given: Given) -> list[Outcome]:
    """Read the newest version, the version before, and the first, for each number of versions."""
    outcomes = list[Outcome]()
    for versions in given.size.versions:
        async with _secret_of(given, versions) as (ledger, floor):
            outcomes += await compete(_scenarios(ledger, floor, versions, given), given.few)
    return outcomes


@asynccontextmanager
async def _secret_of(
    given: Given, versions: int
) -> AsyncIterator[tuple[SecretLedger, SealedFloor]]:
    place, value = given.place, some_value()
    say(f"writing {versions:,} versions of a secret")
    url, floor_url = place.empty("walks"), place.empty("walks_floor")
    async with (
        SecretLedger.open(url, Keyring.of(Key.generate())) as ledger,
        filled(floor_url, versions) as floor,
    ):
        for first in range(0, versions, _BATCH):
            batch = range(min(_BATCH, versions - first))
            await asyncio.gather(*(ledger.put(_NAME, value) for _ in batch))
        yield ledger, floor
    place.drop(url)
    place.drop(floor_url)


def _scenarios(
    ledger: SecretLedger, floor: SealedFloor, versions: int, given: Given
) -> list[Scenario]:
    def scenario(what: str, ours: Callable[[], Awaitable[object]], rows: int) -> Scenario:
        return Scenario(
            f"{what} of {versions:,}",
            {
                OURS: repeating(ours, given.size.seconds),
                FLOOR: repeating(lambda: floor.hash(versions - rows), given.size.seconds),
            },
        )

    return [
        scenario("newest", lambda: ledger.get(_NAME), 1),
        scenario("one before", lambda: ledger.get(_NAME, version=versions - 1), 2),
        scenario("first", lambda: ledger.get(_NAME, version=1), versions),
    ]
