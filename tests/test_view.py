"""Secrets kept in memory, still sealed: what is answered from there, and what never is."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from attacker import attacking, put_back, saved
from between import Transactions, interrupted
from cutting_proxy import CuttingProxy
from hanging import hanging
from ledgers import NEW, OLD, file_of, open_files, opened
from log_builder import building
from postgresql_server import PostgresServer
from secret_ledger import (
    InvalidValue,
    Keyring,
    LedgerUnavailable,
    MissingKey,
    SecretDeleted,
    SecretDestroyed,
    SecretLedger,
    SecretNotFound,
    TamperedEvent,
    ViewStatus,
)
from waiting import until

LONG = 3600.0
"""A staleness that no test lives to see the end of."""
STALENESS = pytest.mark.parametrize("staleness", [0, LONG], ids=["fresh", "stale"])


@pytest.fixture(autouse=True)
def _seldom(monkeypatch: pytest.MonkeyPatch) -> None:
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
    async with (
        opened(database_url, OLD, max_staleness=LONG) as ledger,
        opened(database_url, OLD) as other,
    ):
        await ledger.put("a", "1")
        await keep(ledger, "a")
        writing = asyncio.create_task(ledger.put("a", "2"))
        async with counting(ledger) as asked:

            async def begun() -> bool:
                return asked.begun > 0

            await until(begun)
        writing.cancel()
        await asyncio.wait([writing])
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


# --- the fence -----------------------------------------------------------------------------


async def test_a_rotation_is_followed_before_anything_is_answered(database_url: str) -> None:
    async with (
        building(database_url, OLD) as log,
        opened(database_url, NEW, OLD, max_staleness=0) as ledger,
    ):
        await log.put("a", b"1")
        await keep(ledger, "a")
        await log.rotate(NEW)
        assert await text(ledger) == "1"
        assert ledger._follower.standing.control.epoch == 3
        assert status(ledger).misses == 1
        await log.put("a", b"2")
        assert (await ledger.get("a")).key_id == "k-new"


async def test_what_a_lost_key_sealed_is_gone_from_memory_too(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.rotate(NEW)
        async with opened(database_url, NEW, OLD, max_staleness=0) as ledger:
            await keep(ledger, "a")
            await log.lose(OLD)  # the epoch stays the same
            with pytest.raises(SecretDestroyed):
                await ledger.get("a")


async def test_a_key_that_is_given_up_opens_nothing_in_memory(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.rotate(NEW)
    async with opened(database_url, NEW, OLD, max_staleness=LONG, verify="control") as ledger:
        await keep(ledger, "a")
        assert await ledger.reload_keys(Keyring.of(NEW))
        async with counting(ledger) as asked:
            with pytest.raises(MissingKey):
                await ledger.get("a")
        assert asked.begun >= 2  # the control stream was read, and the secret
        assert await ledger.reload_keys(Keyring.of(NEW, [OLD]))
        assert await text(ledger) == "1"


@STALENESS
async def test_reads_beside_a_flip_of_the_generation_are_neither_stale_nor_missing(
    database_url: str, staleness: float
) -> None:
    async with building(database_url, OLD):
        pass
    async with (
        opened(database_url, NEW, OLD, max_staleness=staleness) as reader,
        opened(database_url, NEW, OLD, max_staleness=LONG) as operator,
    ):
        await operator.put_many({f"s/{n}": "0" for n in range(20)})
        await operator.rotate()
        for ledger in (reader, operator):
            await keep(ledger, *(f"s/{n}" for n in range(20)))
        written = 0
        told = ["0"] * 20
        turning = True

        async def read(ledger: SecretLedger, *, fresh: bool) -> None:
            number = 0
            while turning:
                before = int(told[number])
                got = int(await text(ledger, f"s/{number}"))
                assert got >= (before if fresh else 0)
                number = (number + 1) % 20
                await asyncio.sleep(0)

        async def write() -> None:
            nonlocal written
            while turning:
                written += 1
                await operator.put(f"s/{written % 20}", str(written))
                told[written % 20] = str(written)

        tasks = [
            asyncio.create_task(read(reader, fresh=staleness == 0)),
            asyncio.create_task(read(operator, fresh=True)),
            asyncio.create_task(write()),
        ]
        done = await operator.migrate()
        assert done.changed
        end = written + 30

        async def went_on() -> bool:
            return written >= end or any(task.done() for task in tasks)

        await until(went_on)
        turning = False
        await asyncio.gather(*tasks)
        for number in range(20):
            assert (await operator.get(f"s/{number}")).key_id == "k-new"
            if staleness == 0:
                got = await reader.get(f"s/{number}")
                assert (got.key_id, got.value.reveal_text()) == ("k-new", told[number])


async def test_behind_a_flip_nothing_is_answered_from_the_old_generation(
    database_url: str,
) -> None:
    async with building(database_url, OLD):
        pass
    async with opened(database_url, NEW, OLD, max_staleness=LONG) as ledger:
        assert (await ledger.rotate()).changed
        await ledger.put("a", "under the new key already")
        await keep(ledger, "a")
        assert (await ledger.migrate()).changed
        misses = status(ledger).misses
        assert (await ledger.get("a")).key_id == "k-new"
        assert status(ledger).misses == misses + 1


async def test_the_source_of_a_move_is_read_on(database_url: str) -> None:
    async with (
        opened(database_url, OLD, max_staleness=0) as ledger,
        building(database_url, OLD) as log,
    ):
        await log.put("a", b"1")
        await keep(ledger, "a")
        await log.move_away()
        assert await text(ledger) == "1"
        assert ledger._follower.standing.moved


# --- damage --------------------------------------------------------------------------------


async def test_a_damaged_row_is_never_judged_from_memory(database_url: str) -> None:
    async with (
        opened(database_url, OLD, max_staleness=LONG) as ledger,
        attacking(database_url) as attacker,
    ):
        await ledger.put_many({"a": "1", "b": "1"})
        await keep(ledger, "b")
        each = status(ledger).bytes
        whole = await saved(attacker, "secret_event")
        await attacker.sql("UPDATE secret_event SET metadata = '{\"x\":1}' WHERE stream = 'a'")
        for _ in range(3):
            async with counting(ledger) as asked:
                with pytest.raises(TamperedEvent):
                    await ledger.get("a")
            assert asked.begun >= 2
        assert status(ledger).hits == 1
        await put_back(attacker, whole)
        assert await text(ledger) == "1"
        assert status(ledger).bytes == 2 * each


async def test_what_was_authentic_when_it_was_read_is_answered_until_it_is_read_anew(
    database_url: str,
) -> None:
    async with (
        opened(database_url, OLD, max_staleness=0) as ledger,
        attacking(database_url) as attacker,
    ):
        await ledger.put("a", "1")
        await keep(ledger, "a")
        await attacker.sql("UPDATE secret_event SET metadata = '{\"x\":1}' WHERE stream = 'a'")
        assert await text(ledger) == "1"
        assert not (await ledger.verify()).ok
        with pytest.raises(TamperedEvent):
            await ledger.get("a", version=1)


async def test_a_log_that_got_shorter_is_tampered(database_url: str) -> None:
    async with (
        opened(database_url, OLD, max_staleness=0) as ledger,
        attacking(database_url) as attacker,
    ):
        await ledger.put_many({"a": "1", "b": "1"})
        before = await saved(attacker, "secret_event", "ledger_head")
        await ledger.put("b", "2")
        await keep(ledger, "a", "b")
        await put_back(attacker, before)
        for name in ("a", "b"):
            with pytest.raises(TamperedEvent, match="behind position"):
                await ledger.get(name)


async def test_a_head_row_at_another_epoch_than_the_control_stream_is_tampered(
    database_url: str,
) -> None:
    async with (
        building(database_url, OLD) as log,
        opened(database_url, OLD, max_staleness=0) as ledger,
    ):
        await log.put("a", b"1")
        await keep(ledger, "a")
        await log.set_head(0, key_epoch=3)
        with pytest.raises(TamperedEvent, match="epoch"):
            await ledger.get("a")


@pytest.mark.parametrize("when_stale", ["database", "refuse"])
async def test_no_generation_in_use_is_tampered(database_url: str, when_stale: str) -> None:
    async with (
        opened(database_url, OLD, max_staleness=0, when_stale=when_stale) as ledger,
        building(database_url, OLD) as log,
    ):
        await log.put("a", b"1")
        await keep(ledger, "a")
        await log.set_head(0, state="closed")
        with pytest.raises(TamperedEvent):
            await ledger.get("a")


def _exchanged(file: Path) -> None:
    copy = file.with_suffix(".copy")
    copy.write_bytes(file.read_bytes())
    copy.rename(file)


@STALENESS
@pytest.mark.parametrize("change", [Path.unlink, _exchanged])
async def test_a_file_that_is_not_in_its_place_any_more_gives_no_value_from_memory(
    sqlite_url: str, staleness: float, change: Callable[[Path], None]
) -> None:
    async with opened(sqlite_url, OLD, max_staleness=staleness) as ledger:
        await ledger.put("a", "1")
        await keep(ledger, "a")
        change(Path(file_of(sqlite_url)))
        with pytest.raises(LedgerUnavailable, match="not the file that was opened"):
            await ledger.get("a")


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
                with pytest.raises(LedgerUnavailable, match="did not tell in time") as caught:
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
