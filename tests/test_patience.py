"""How long a write waits for its database: as long as its caller is patient, and no longer."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from connections import around
from held_commit import HeldCommit
from inside import writer
from ledgers import OLD, file_of, opened
from secret_ledger import LedgerUnavailable
from secret_ledger_projections import default

CALLERS = 12


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[None]:
    """Somebody else holds what writers wait for."""
    if url.startswith("sqlite"):
        other = sqlite3.connect(file_of(url), isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            yield
        finally:
            other.close()
        return
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM secret_ledger.ledger_head FOR UPDATE")
            yield
    finally:
        await connection.close()


async def test_a_caller_s_patience_is_over_however_many_batches_wait_before_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BATCH_EVENTS", 1)
    tries: list[str] = []

    def count(original: Any, connection: Any, *given: Any) -> Any:
        if connection.mode == "write" or given[:1] == ("write",):
            tries.append("lock")
        return original(connection, *given)

    async with opened(database_url, OLD, patience=1) as ledger:
        await ledger.put("a", "1")
        async with locked(database_url):
            with around("begin" if database_url.startswith("sqlite") else "script", count):
                outcomes = await asyncio.gather(
                    *(ledger.put(f"b/{n}", "1") for n in range(CALLERS)), return_exceptions=True
                )
        for outcome in outcomes:
            assert isinstance(outcome, LedgerUnavailable)
            assert not outcome.outcome_unknown
        # One waited for all of them; another may have come a moment later.
        assert len(tries) < CALLERS / 2
        assert (await ledger.put("a", "2")).version == 2
        assert [one.name async for one in ledger.list()] == ["a"]


async def test_who_calls_when_the_trouble_is_over_is_not_told_of_it(database_url: str) -> None:
    async with opened(database_url, OLD, patience=0) as ledger:
        await ledger.put("a", "1")
        for version in (2, 3):
            async with locked(database_url):
                with pytest.raises(LedgerUnavailable):
                    await ledger.put("a", "x")
            assert (await ledger.put("a", "y")).version == version


async def test_a_database_that_is_slow_and_works_tries_nobody_s_patience(
    database_url: str,
) -> None:
    held = HeldCommit()
    async with opened(database_url, OLD, patience=0, projections=[*default(), held]) as ledger:
        await ledger.put("a", "1")
        free = asyncio.Event()
        begun = asyncio.Event()

        async def meanwhile() -> None:
            begun.set()
            await free.wait()

        held.meanwhile = meanwhile
        first = asyncio.create_task(ledger.put("a", "2"))
        await begun.wait()
        second = asyncio.create_task(ledger.put("a", "3"))
        await asyncio.sleep(0)
        free.set()
        assert [(await first).version, (await second).version] == [2, 3]
