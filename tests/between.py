"""Doing something between two transactions of one ledger, at each place in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from secret_ledger import SecretLedger


class Transactions:
    """Counts a ledger's transactions, reads too."""

    def __init__(self) -> None:
        self.begun = 0


@asynccontextmanager
async def interrupted(
    ledger: SecretLedger, at: int, meanwhile: Callable[[], Awaitable[object]]
) -> AsyncIterator[Transactions]:
    """Await `meanwhile` just before the ledger's transaction number `at`, from now on; 0: never.

    It comes to its end, also where the ledger's own task is cancelled: it is somebody else's.
    """
    database: Any = ledger.database
    run = database.run
    seen = Transactions()
    others: list[asyncio.Future[object]] = []

    async def counted(unit: object, mode: object, **options: object) -> object:
        seen.begun += 1
        if seen.begun == at:
            others.append(asyncio.ensure_future(meanwhile()))
            await asyncio.shield(others[0])
        return await run(unit, mode, **options)

    database.run = counted
    try:
        yield seen
    finally:
        del database.run
        await asyncio.gather(*others)


@asynccontextmanager
async def at_once(
    ledger: SecretLedger,
    due: Callable[[], Awaitable[bool]],
    meanwhile: Callable[[], Awaitable[object]],
) -> AsyncIterator[None]:
    """Await `meanwhile` before the ledger's first transaction that begins when it is `due`.

    None of its transactions begins while this is found out and done.
    """
    database: Any = ledger.database
    run = database.run
    gate = asyncio.Lock()
    done = False

    async def watched(unit: object, mode: object, **options: object) -> object:
        nonlocal done
        async with gate:
            if not done and await due():
                done = True
                await meanwhile()
        return await run(unit, mode, **options)

    database.run = watched
    try:
        yield
    finally:
        del database.run
    assert done, "it never was due"
