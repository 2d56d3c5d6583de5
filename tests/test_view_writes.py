"""Secrets kept in memory beside writes: a node's own are seen by its next read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cutting_proxy import CuttingProxy
from held_commit import HeldCommit
from ledgers import NEW, OLD, opened
from log_builder import building
from secret_ledger import LedgerUnavailable, SecretDeleted, SecretDestroyed, SecretLedger
from secret_ledger_projections import default
from viewed import LONG, STALENESS, keep, status, text

pytestmark = pytest.mark.usefixtures("seldom_asked")


@asynccontextmanager
async def one_answer_held_back(ledger: SecretLedger) -> AsyncIterator[asyncio.Task[str]]:
    """A read of "a" that was answered by the database, and hears of it when the block ends."""
    database: Any = ledger.database
    run = database.run
    answered, told = asyncio.Event(), asyncio.Event()

    async def held(unit: object, mode: object) -> object:
        del database.run
        answer = await run(unit, mode)
        answered.set()
        await told.wait()
        return answer

    database.run = held
    reading = asyncio.create_task(text(ledger))
    await answered.wait()
    try:
        yield reading
    finally:
        told.set()
        await reading


# --- one's own writes ----------------------------------------------------------------------


@STALENESS
async def test_ones_own_writes_are_seen_by_the_next_read(
    database_url: str, staleness: float
) -> None:
    async with building(database_url, OLD):
        pass
    async with opened(database_url, NEW, OLD, max_staleness=staleness) as ledger:
        await ledger.put("a", "1")
        await keep(ledger, "a")
        await ledger.put("a", "2")
        assert await text(ledger) == "2"
        await ledger.put_many({"a": "3", "b": "3"})
        assert await text(ledger) == "3"
        assert await text(ledger, "b") == "3"
        await ledger.put_many({"a": "3", "b": "4"})
        assert await text(ledger, "b") == "4"
        await ledger.delete("a")
        with pytest.raises(SecretDeleted):
            await ledger.get("a")
        await ledger.restore("a")
        assert await text(ledger) == "3"
        await ledger.rekey()
        await ledger.rotate()
        await ledger.rekey()
        assert (await ledger.get("a")).key_id == "k-new"
        await ledger.destroy("a", reason="r")
        with pytest.raises(SecretDestroyed):
            await ledger.get("a")
        await ledger.put("a", "4")
        assert await text(ledger) == "4"


@STALENESS
async def test_what_was_read_back_after_ones_own_write_stays(
    database_url: str, staleness: float
) -> None:
    async with opened(database_url, OLD, max_staleness=staleness) as ledger:
        await ledger.put_many({"a": "1", "b": "1"})
        await keep(ledger, "a", "b")
        await ledger.put("a", "2")
        assert await text(ledger) == "2"
        misses = status(ledger).misses
        for _ in range(5):
            assert (await text(ledger), await text(ledger, "b")) == ("2", "1")
        assert status(ledger).misses == misses


@STALENESS
async def test_many_tasks_each_see_what_they_wrote(database_url: str, staleness: float) -> None:
    async with opened(database_url, OLD, max_staleness=staleness) as ledger:

        async def work(task: int) -> None:
            for number in range(15):
                name = f"shared/{(task + number) % 3}"
                written = await ledger.put(name, f"{task}/{number}")
                got = await ledger.get(name)
                assert got.version >= written.version
                if got.version == written.version:
                    assert got.value == written.value

        await asyncio.gather(*map(work, range(24)))


async def test_a_read_that_was_under_way_does_not_bring_the_old_value_back(
    database_url: str,
) -> None:
    async with opened(database_url, OLD, max_staleness=LONG) as ledger:
        await ledger.put_many({"a": "old", "b": "1"})
        await keep(ledger, "b")
        async with one_answer_held_back(ledger) as reading:
            await ledger.put("a", "new")
        assert await reading == "old"
        assert await text(ledger) == "new"


async def test_nor_one_that_was_overtaken_by_what_another_wrote(database_url: str) -> None:
    async with (
        opened(database_url, OLD, max_staleness=0) as ledger,
        opened(database_url, OLD) as other,
    ):
        await ledger.put_many({"a": "old", "b": "1"})
        await keep(ledger, "b")
        async with one_answer_held_back(ledger):
            await other.put("a", "new")
            assert await text(ledger, "b") == "1"  # it hears of that meanwhile
        assert await text(ledger) == "new"


async def test_nor_one_that_was_overtaken_by_a_newer_read(database_url: str) -> None:
    async with (
        opened(database_url, OLD, max_staleness=LONG) as ledger,
        opened(database_url, OLD) as other,
    ):
        await ledger.put_many({"a": "old", "b": "1"})
        await keep(ledger, "b")
        async with one_answer_held_back(ledger):
            await other.put("a", "new")
            assert await text(ledger) == "new"
        assert await text(ledger) == "new"


async def test_a_write_whose_caller_was_cancelled_is_seen(database_url: str) -> None:
    held = HeldCommit()
    async with (
        opened(database_url, OLD, max_staleness=LONG, projections=[*default(), held]) as ledger,
        opened(database_url, OLD) as other,
    ):
        await ledger.put("a", "1")
        await keep(ledger, "a")

        async def cancel() -> None:
            writing.cancel()

        held.meanwhile = cancel
        writing = asyncio.create_task(ledger.put("a", "2"))
        await asyncio.wait([writing])
        assert writing.cancelled()
        await ledger.put("b", "behind it in the queue")
        assert await text(other) == "2"
        assert await text(ledger) == "2"


async def test_a_write_of_unknown_outcome_is_looked_for_in_the_database(postgres_url: str) -> None:
    async with (
        CuttingProxy(postgres_url) as proxy,
        opened(proxy.url, OLD, max_staleness=LONG, patience=0) as ledger,
    ):
        await ledger.put("a", "1")
        await keep(ledger, "a")
        proxy.cut = "before its answer arrives"
        with pytest.raises(LedgerUnavailable) as caught:
            await ledger.put("a", "2")
        assert caught.value.outcome_unknown
        assert await text(ledger) == "2"
