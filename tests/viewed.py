"""Help for tests of what is kept in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from between import Transactions, interrupted
from secret_ledger import SecretLedger, ViewStatus

LONG = 3600.0
"""A staleness that no test lives to see the end of."""
STALENESS = pytest.mark.parametrize("staleness", [0, LONG], ids=["fresh", "stale"])


@pytest.fixture
def seldom_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the database before it has to be, so that what is can be counted."""
    monkeypatch.setattr("secret_ledger.read.view.OFTEN", LONG)


async def text(ledger: SecretLedger, name: str = "a") -> str:
    return (await ledger.get(name)).value.reveal_text()


def status(ledger: SecretLedger) -> ViewStatus:
    assert ledger.view is not None
    return ledger.view


async def keep(ledger: SecretLedger, *names: str) -> None:
    """Have these in memory, and a proof that they are current."""
    for _ in range(2):
        for name in names:
            await ledger.get(name)


async def asking() -> bool:
    """Whether some view waits for the database's answer."""
    return any(task.get_name() == "secret-ledger view" for task in asyncio.all_tasks())


@asynccontextmanager
async def counting(ledger: SecretLedger) -> AsyncIterator[Transactions]:
    """Counts what the database is asked."""

    async def nothing() -> None: ...

    async with interrupted(ledger, 0, nothing) as seen:
        yield seen
