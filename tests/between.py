"""Doing something between two transactions of one ledger, at each place in turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ledger import SecretLedger


class Transactions:
    """Counts a ledger's transactions, reads too."""

    def __init__(self) -> None:
        self.begun = 0


@contextmanager
def interrupted(
    ledger: SecretLedger, at: int, meanwhile: Callable[[], Awaitable[object]]
) -> Iterator[Transactions]:
    """Await `meanwhile` just before the ledger's transaction number `at`, from now on; 0: never."""
    database: Any = ledger.database
    run = database.run
    seen = Transactions()

    async def counted(unit: object, mode: object) -> object:
        seen.begun += 1
        if seen.begun == at:
            await meanwhile()
        return await run(unit, mode)

    database.run = counted
    try:
        yield seen
    finally:
        del database.run
