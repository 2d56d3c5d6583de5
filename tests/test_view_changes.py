"""Secrets kept in memory while keys, generations or rows change below them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from attacker import attacking, put_back, saved
from ledgers import NEW, OLD, file_of, opened
from log_builder import building
from secret_ledger import (
    Keyring,
    LedgerUnavailable,
    MissingKey,
    SecretDestroyed,
    SecretLedger,
    TamperedEvent,
)
from viewed import LONG, STALENESS, counting, keep, status, text
from waiting import until

pytestmark = pytest.mark.usefixtures("seldom_asked")

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
