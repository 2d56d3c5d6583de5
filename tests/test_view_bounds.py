"""Secrets kept in memory: how much, and for how long; a database that is out of reach; the end."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hanging import hanging
from ledgers import OLD, file_of, open_files, opened
from postgresql_server import PostgresServer
from secret_ledger import InvalidValue, LedgerUnavailable, SecretLedger
from viewed import LONG, STALENESS, asking, counting, keep, status, text
from waiting import until

pytestmark = pytest.mark.usefixtures("seldom_asked")

# --- bounded in size -----------------------------------------------------------------------


async def test_what_was_not_used_for_longest_goes_first(database_url: str) -> None:
    async with opened(database_url, OLD, max_staleness=LONG) as ledger:
        await ledger.put_many(dict.fromkeys("abc", "1"))
        await keep(ledger, "a")
        each = status(ledger).bytes
    async with opened(database_url, OLD, max_staleness=LONG, view_bytes=2 * each) as ledger:
        await keep(ledger, "a", "b")
        await ledger.get("a")
        await ledger.get("c")  # in place of b
        for name, transactions in (("a", 0), ("c", 0), ("b", 1)):
            async with counting(ledger) as asked:
                await ledger.get(name)
            assert asked.begun == transactions
        assert (status(ledger).secrets, status(ledger).bytes) == (2, 2 * each)


async def test_what_is_larger_than_all_of_it_is_not_kept_and_takes_no_place(
    database_url: str,
) -> None:
    async with opened(database_url, OLD, max_staleness=LONG, view_bytes=10_000) as ledger:
        await ledger.put_many({"a": b"1", "large": b"x" * 10_000})
        await keep(ledger, "a", "large")
        assert status(ledger).secrets == 1
        assert len((await ledger.get("large")).value.reveal()) == 10_000


async def test_what_a_caller_does_to_an_answer_is_not_in_the_next(sqlite_url: str) -> None:
    async with opened(sqlite_url, OLD, max_staleness=LONG) as ledger:
        await ledger.put("a", "1", metadata={"tags": ["old"]})
        await ledger.put("b", "1")
        await keep(ledger, "a", "b")
        for name, expected in (("a", {"tags": ["old"]}), ("b", {})):
            got: Any = (await ledger.get(name)).metadata
            got.setdefault("tags", []).append("mine")
            assert (await ledger.get(name)).metadata == expected
        assert status(ledger).hits == 6  # the first of each was not kept yet


async def test_it_takes_no_more_memory_than_it_says(sqlite_url: str) -> None:
    names = [f"{n:03}" + "n" * (n % 200) for n in range(600)]
    async with opened(sqlite_url, OLD, max_staleness=LONG) as ledger:
        for start in range(0, 600, 100):
            items = {name: b"x" * (n % 7 * 100) for n, name in enumerate(names[start:][:100])}
            await ledger.put_many(items, actor="someone of some interest")
        await keep(ledger, *names[:100])
        tracemalloc.start()
        try:
            gc.collect()
            before, said = tracemalloc.get_traced_memory()[0], status(ledger).bytes
            for name in names[100:]:
                await ledger.get(name)
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert status(ledger).secrets == 600
        assert taken <= status(ledger).bytes - said <= 1.5 * taken


# --- when it can't be kept current ---------------------------------------------------------


async def test_within_the_bound_a_server_that_is_gone_is_not_missed(
    private_postgres: PostgresServer,
) -> None:
    url = private_postgres.create_database("gone")
    async with opened(url, OLD, max_staleness=LONG, when_stale="refuse", patience=0) as ledger:
        await ledger.put_many({"a": "1", "b": "1"})
        await keep(ledger, "a")
        private_postgres.stop("immediate")
        assert await text(ledger) == "1"
        with pytest.raises(LedgerUnavailable):
            await ledger.get("b")
        private_postgres.start()
        assert await text(ledger, "b") == "1"


@pytest.mark.parametrize("when_stale", ["database", "refuse"])
async def test_beyond_the_bound_a_server_that_is_gone_is_said_to_be(
    private_postgres: PostgresServer, when_stale: str
) -> None:
    url = private_postgres.create_database("gone")
    async with opened(url, OLD, max_staleness=0, when_stale=when_stale, patience=0) as ledger:
        await ledger.put("a", "1")
        await keep(ledger, "a")
        private_postgres.stop("immediate")
        misses = status(ledger).misses
        with pytest.raises(LedgerUnavailable):
            await ledger.get("a")
        assert status(ledger).misses - misses == (when_stale == "database")
        private_postgres.start()
        assert await text(ledger) == "1"


async def test_a_database_that_hangs_is_waited_for_or_refused_as_was_chosen(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secret_ledger.read.view.SLOW", 0.05)
    async with (
        opened(database_url, OLD, max_staleness=0) as waits,
        opened(database_url, OLD, max_staleness=0, when_stale="refuse") as refuses,
        opened(database_url, OLD) as other,
    ):
        await other.put("a", "1")
        await keep(waits, "a")
        await keep(refuses, "a")
        await other.put("b", "1")  # so that SQLite has something to ask, too
        async with hanging(refuses, database_url):
            for _ in range(3):
                with pytest.raises(LedgerUnavailable, match="did not confirm in time") as caught:
                    await refuses.get("a")
                assert caught.value.hint
        # The question that was not answered has been by now, or is about to be.
        await until(partial(_answers, refuses))
        async with hanging(waits, database_url):
            misses = status(waits).misses
            reading = asyncio.create_task(text(waits))

            async def asks() -> bool:
                return status(waits).misses > misses

            await until(asks)
            assert not reading.done()
        assert await reading == "1"


async def _answers(ledger: SecretLedger) -> bool:
    try:
        return await text(ledger) == "1"
    except LedgerUnavailable:
        return False


async def test_a_cancelled_reader_takes_no_other_with_it(database_url: str) -> None:
    async with (
        opened(database_url, OLD, max_staleness=0) as ledger,
        opened(database_url, OLD) as other,
    ):
        await other.put("a", "1")
        await keep(ledger, "a")
        await other.put("a", "2")
        async with hanging(ledger, database_url):
            readers = [asyncio.create_task(text(ledger)) for _ in range(10)]
            readers.append(asyncio.create_task(text(ledger, "never read")))
            await until(asking)
            for reader in (*readers[:5], readers[-1]):
                reader.cancel()
        got = await asyncio.gather(*readers, return_exceptions=True)
        assert got[5:10] == ["2"] * 5
        assert all(isinstance(one, asyncio.CancelledError) for one in (*got[:5], got[-1]))
        assert ledger._view is not None
        assert not ledger._view._reading


# --- its end -------------------------------------------------------------------------------


@STALENESS
async def test_a_closed_ledger_answers_nothing_from_memory(
    database_url: str, staleness: float
) -> None:
    async with opened(database_url, OLD, max_staleness=staleness) as ledger:
        await ledger.put("a", "1")
        await keep(ledger, "a")
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="closed"):
            await ledger.get("a")
    assert status(ledger).secrets == 0
    if ledger.database.name == "sqlite":
        assert open_files(file_of(database_url)) == []


async def test_closing_does_not_wait_for_a_proof_that_is_under_way(database_url: str) -> None:
    async with (
        opened(database_url, OLD, max_staleness=0) as ledger,
        opened(database_url, OLD) as other,
    ):
        await other.put("a", "1")
        await keep(ledger, "a")
        await other.put("b", "1")
        async with hanging(ledger, database_url):
            reading = asyncio.create_task(text(ledger))
            await until(asking)
            assert ledger._view is not None
            async with asyncio.timeout(60):
                await ledger._view.close()
            assert not await asking()
        assert await reading == "1"
        assert status(ledger).secrets == 0


async def test_another_event_loop_is_given_nothing_from_memory(sqlite_url: str) -> None:
    async with opened(sqlite_url, OLD, max_staleness=LONG) as ledger:
        await ledger.put("a", "1")
        await keep(ledger, "a")

        def elsewhere() -> None:
            with pytest.raises(LedgerUnavailable, match="another event loop"):
                asyncio.run(text(ledger))

        await asyncio.to_thread(elsewhere)


@pytest.mark.parametrize(
    "options",
    [
        {"max_staleness": -1},
        {"max_staleness": float("nan")},
        {"max_staleness": float("inf")},
        {"max_staleness": 1, "when_stale": "maybe"},
        {"max_staleness": 1, "view_bytes": 0},
    ],
    ids=str,
)
async def test_bounds_that_make_no_sense_are_refused(
    sqlite_url: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidValue):
        async with opened(sqlite_url, OLD, **options):
            pass
    assert not Path(file_of(sqlite_url)).exists()
