"""Secrets kept in memory, still sealed: what is answered from there, and what is asked for."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from hanging import hanging
from ledgers import NEW, OLD, opened
from log_builder import building
from secret_ledger import (
    InvalidValue,
    Keyring,
    SecretDeleted,
    SecretDestroyed,
    SecretLedger,
    SecretNotFound,
)
from viewed import LONG, STALENESS, asking, counting, keep, status, text
from waiting import until

pytestmark = pytest.mark.usefixtures("seldom_asked")

# --- what is answered from memory ----------------------------------------------------------


@STALENESS
async def test_what_was_read_is_read_again_without_the_database(
    database_url: str, staleness: float
) -> None:
    async with opened(database_url, OLD, max_staleness=staleness) as ledger:
        await ledger.put("a", "1", actor="alice", metadata={"n": 1})
        await keep(ledger, "a")
        before = status(ledger)
        async with counting(ledger) as asked:
            got = [await ledger.get("a") for _ in range(100)]
        assert {one.value.reveal() for one in got} == {b"1"}
        assert (got[0].actor, got[0].metadata, got[0].version) == ("alice", {"n": 1}, 1)
        tells_by_itself = ledger.database.name == "sqlite"
        assert asked.begun == (0 if tells_by_itself or staleness else 100)
        after = status(ledger)
        assert (after.hits - before.hits, after.misses - before.misses) == (100, 0)
        assert (after.secrets, after.bytes > 0) == (1, True)
        assert after.age_seconds is not None


async def test_readers_that_wait_for_the_proof_share_it(postgres_url: str) -> None:
    async with opened(postgres_url, OLD, max_staleness=0) as ledger:
        await ledger.put("a", "1")
        await keep(ledger, "a")
        async with counting(ledger) as asked:
            got = await asyncio.gather(*(text(ledger) for _ in range(50)))
        assert got == ["1"] * 50
        assert asked.begun <= 2


async def test_readers_that_come_while_it_is_asked_for_share_the_next_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secret_ledger.read.view.SLOW", LONG)
    async with (
        opened(database_url, OLD, max_staleness=0) as ledger,
        opened(database_url, OLD) as other,
    ):
        await other.put("a", "1")
        await keep(ledger, "a")
        await other.put("b", "so that SQLite has something to ask, too")
        async with counting(ledger) as asked:
            async with hanging(ledger, database_url):
                before = asked.begun  # SQLite is kept busy by transactions
                readers = [asyncio.create_task(text(ledger))]
                await until(asking)
                readers += [asyncio.create_task(text(ledger)) for _ in range(50)]
                await asyncio.sleep(0)
            assert await asyncio.gather(*readers) == ["1"] * 51
        assert asked.begun - before == 2


async def test_without_a_bound_on_staleness_every_read_asks_the_database(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        assert ledger.view is None
        async with counting(ledger) as asked:
            for _ in range(5):
                await ledger.get("a")
        assert asked.begun == 5


async def test_a_tombstone_is_answered_from_memory_and_an_unknown_name_is_asked_for(
    database_url: str,
) -> None:
    async with opened(database_url, OLD, max_staleness=LONG) as ledger:
        for name in ("deleted", "destroyed"):
            await ledger.put(name, "1")
        await ledger.delete("deleted")
        await ledger.destroy("destroyed", reason="r")
        await ledger.put("live", "1")
        await keep(ledger, "live")
        ends = (
            ("deleted", SecretDeleted), ("destroyed", SecretDestroyed), ("never", SecretNotFound),
        )  # fmt: skip
        for name, kind in ends:
            with pytest.raises(kind):
                await ledger.get(name)
        hits = status(ledger).hits
        async with counting(ledger) as asked:
            for name, kind in ends:
                with pytest.raises(kind):
                    await ledger.get(name)
        assert asked.begun == 1
        assert status(ledger).hits - hits == 2


async def test_older_versions_are_read_from_the_database(database_url: str) -> None:
    async with opened(database_url, OLD, max_staleness=LONG) as ledger:
        first = await ledger.put("a", "1")
        await ledger.put("a", "2")
        await keep(ledger, "a")
        assert (await ledger.get("a", version=1)).value.reveal() == b"1"
        assert (await ledger.get("a", at=first.recorded_at)).value.reveal() == b"1"
        with pytest.raises(InvalidValue):
            await ledger.get("a", version=True)


async def test_a_ledger_that_is_gone_when_it_is_closed_can_keep_them_too() -> None:
    async with SecretLedger.open(
        "sqlite+aiosqlite:///:memory:", Keyring.of(OLD), max_staleness=0
    ) as ledger:
        for number in range(5):
            await ledger.put("a", str(number))
            assert [await text(ledger) for _ in range(3)] == [str(number)] * 3


# --- what others write ---------------------------------------------------------------------


async def test_with_a_staleness_of_0_what_others_wrote_is_seen_at_once(database_url: str) -> None:
    async with (
        opened(database_url, OLD, max_staleness=0) as ledger,
        opened(database_url, OLD) as other,
    ):
        for number in range(10):
            await other.put("a", str(number))
            assert await text(ledger) == str(number)
            written = await other.put("b", "beside it")
            assert await text(ledger) == str(number)
            assert ledger.position == written.position
        await other.delete("a")
        with pytest.raises(SecretDeleted):
            await ledger.get("a")
        await other.restore("a")
        assert await text(ledger) == "9"
        await other.destroy("a", reason="r")
        with pytest.raises(SecretDestroyed):
            await ledger.get("a")


async def test_where_sqlite_can_not_tell_by_itself_the_database_is_asked(sqlite_url: str) -> None:
    async with (
        opened(sqlite_url, OLD, max_staleness=0) as ledger,
        opened(sqlite_url, OLD) as other,
    ):
        await other.put("a", "1")
        await keep(ledger, "a")
        database: Any = ledger.database
        database._watching.close()
        for number in range(3):
            await other.put("a", str(number))
            assert [await text(ledger) for _ in range(3)] == [str(number)] * 3
        async with counting(ledger) as asked:
            await text(ledger)
        assert asked.begun == 1


async def test_nothing_older_than_the_bound_is_ever_given(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads without a pause in between, beside another's writes."""
    monkeypatch.undo()  # with the proof fetched ahead, as it is meant to be
    bound, last = 0.2, 0
    done: dict[int, float] = {}
    async with (
        opened(database_url, OLD, max_staleness=bound) as ledger,
        opened(database_url, OLD) as other,
    ):

        async def write() -> None:
            for number in range(20):
                await other.put("a", str(number))
                done[number] = time.monotonic()
                await until(partial(is_seen, number))

        async def is_seen(number: int) -> bool:
            return last == number

        await other.put("a", "0")
        writing = asyncio.create_task(write())
        while not writing.done():
            began = time.monotonic()
            last = int(await text(ledger))
            newer = done.get(last + 1)
            assert newer is None or began - newer <= bound
            await asyncio.sleep(0)
        await writing
        assert status(ledger).hits > status(ledger).misses


async def test_a_loop_of_reads_that_never_pauses_does_not_keep_the_proof_from_being_fetched(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("secret_ledger.read.view.BREATH", 10**9)
    async with (
        opened(database_url, OLD, max_staleness=LONG) as ledger,
        opened(database_url, OLD) as other,
    ):
        await other.put("a", "1")
        await keep(ledger, "a")
        await other.put("a", "2")
        async with asyncio.timeout(60):
            while await text(ledger) != "2":
                pass


async def test_a_loop_of_reads_gives_other_tasks_their_turn(database_url: str) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with opened(database_url, OLD, max_staleness=LONG) as ledger:
        await ledger.put("a", "1")
        await keep(ledger, "a")
        task = asyncio.create_task(others())
        for _ in range(3000):
            await ledger.get("a")
        task.cancel()
        assert turns >= 10


async def test_a_log_that_ran_far_ahead_makes_everything_be_read_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secret_ledger.read.view.EVENTS", 5)
    async with (
        building(database_url, OLD) as log,
        opened(database_url, NEW, OLD, max_staleness=0) as ledger,
    ):
        await log.put("a", b"1")
        await log.put("b", b"1")
        await keep(ledger, "a", "b")
        for number in range(10):
            await log.put("filler", str(number).encode())
        await log.put("a", b"2")
        assert await text(ledger, "b") == "1"
        assert await text(ledger, "a") == "2"
        await keep(ledger, "a", "b")
        assert status(ledger).misses == 4
        await log.rotate(NEW)
        await log.rekey("a")
        assert await text(ledger, "a") == "2"
        for number in range(10):
            await log.put("filler", str(number).encode())
        await log.lose(OLD)
        assert await text(ledger, "a") == "2"
        with pytest.raises(SecretDestroyed):
            await ledger.get("b")


async def test_nothing_is_asked_while_nobody_reads(database_url: str) -> None:
    async with opened(database_url, OLD, max_staleness=LONG) as ledger:
        await ledger.put("a", "1")
        await keep(ledger, "a")

        async def idle() -> bool:
            return not await asking()

        await until(idle)
