"""Which version a read gives, and the four ways in which it ends, over logs that were rotated,
re-encrypted, migrated, purged, and whose keys went missing or were lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inside import EventType
from ledgers import NEW, OLD, THIRD, opened
from log_builder import building
from log_rows import Entry
from secret_ledger import (
    InvalidValue,
    MissingKey,
    SecretDeleted,
    SecretDestroyed,
    SecretLedger,
    SecretNotFound,
    TamperedEvent,
    VersionConflict,
)

MICROSECOND = timedelta(microseconds=1)


async def revealed(ledger: SecretLedger, name: str, **which: Any) -> bytes:
    return (await ledger.get(name, **which)).value.reveal()


async def test_a_time_gives_the_last_version_recorded_at_or_before_it(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        first = (await ledger.put("a", "1")).recorded_at
        second = (await ledger.put("a", "2")).recorded_at
        gone = (await ledger.delete("a")).recorded_at
        assert first < second < gone
        with pytest.raises(SecretNotFound):
            await ledger.get("a", at=first - MICROSECOND)
        assert await revealed(ledger, "a", at=first) == b"1"
        assert await revealed(ledger, "a", at=second - MICROSECOND) == b"1"
        assert await revealed(ledger, "a", at=second) == b"2"
        elsewhere = second.astimezone(datetime.now().astimezone().tzinfo)
        assert await revealed(ledger, "a", at=elsewhere) == b"2"
        assert await revealed(ledger, "a", at=gone - MICROSECOND) == b"2"
        for at in (gone, datetime.max.replace(tzinfo=UTC)):
            with pytest.raises(SecretDeleted):
                await ledger.get("a", at=at)
        with pytest.raises(SecretNotFound):
            await ledger.get("a", at=datetime.min.replace(tzinfo=UTC))


@pytest.mark.parametrize("at", [datetime(2026, 1, 1), "2026-01-01", 1], ids=repr)  # noqa: DTZ001
async def test_a_time_has_a_zone(sqlite_url: str, at: Any) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
        with pytest.raises(InvalidValue, match=r"with(out)? a time zone"):
            await ledger.get("a", at=at)


async def test_a_version_or_a_time_not_both(sqlite_url: str) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
        with pytest.raises(InvalidValue):
            await ledger.get("a", version=1, at=datetime.now(UTC))


# --- rekeyed -------------------------------------------------------------------------------


async def test_a_rekeyed_head_is_the_version_that_it_sealed_again(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        base = await log.put("a", b"2", actor="alice", reason="r", user={"n": 1})
        await log.rotate(NEW)
        await log.rekey("a", by="operator")
        again = await log.rekey("a", by="operator")
    async with opened(database_url, NEW, OLD) as ledger:
        got = await ledger.get("a")
        assert got.value.reveal() == b"2"
        assert (got.version, got.key_id, got.position) == (4, "k-new", again.position)
        assert got.event_type == "secret.rekeyed"
        assert (got.actor, got.reason, got.metadata) == ("alice", "r", {"n": 1})
        original = await ledger.get("a", version=2)
        assert got.recorded_at == original.recorded_at
        assert await revealed(ledger, "a", at=original.recorded_at) == b"2"
        assert base.version == original.version


@pytest.mark.parametrize("expect", [2, 3, 4])
async def test_expect_looks_through_a_re_encryption(database_url: str, expect: int) -> None:
    """A CAS client failed because an operator re-encrypted in between."""
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.put("a", b"2")
        await log.rotate(NEW)
        await log.rekey("a")
        await log.rekey("a")
    async with opened(database_url, NEW, OLD) as ledger:
        for wrong in (0, 1, 5):
            with pytest.raises(VersionConflict):
                await ledger.put("a", "x", expect=wrong)
        assert (await ledger.put("a", "3", expect=expect)).version == 5


async def test_a_rekeyed_tombstone_stays_one(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        for name in ("deleted", "destroyed"):
            await log.put(name, b"1")
        await log.delete("deleted", actor="bob")
        await log.destroy("destroyed", reason="r")
        await log.rotate(NEW)
        await log.rekey("deleted")
        await log.rekey("destroyed")
    async with opened(database_url, NEW) as ledger:
        with pytest.raises(SecretDeleted):
            await ledger.get("deleted")
        with pytest.raises(SecretDestroyed):
            await ledger.get("destroyed")
        with pytest.raises(SecretDestroyed):
            await ledger.delete("destroyed")
        with pytest.raises(MissingKey):
            await ledger.restore("deleted")
        assert [(i.name, i.state) async for i in ledger.list(deleted=True)] == [
            ("deleted", "deleted"),
            ("destroyed", "destroyed"),
        ]
        with pytest.raises(VersionConflict):
            await ledger.put("deleted", "x", expect=1)
        assert (await ledger.put("deleted", "4", expect=2)).version == 4
    async with opened(database_url, NEW, OLD) as ledger:
        await ledger.delete("deleted")
        await ledger.restore("deleted", 1)
        assert await revealed(ledger, "deleted") == b"1"
        assert (await ledger.verify("full")).ok


async def test_a_rekeyed_value_can_be_restored_without_the_old_key(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.rotate(NEW)
        await log.rekey("a")
        await log.delete("a")
    async with opened(database_url, NEW) as ledger:
        await ledger.restore("a")
        assert await revealed(ledger, "a") == b"1"


# --- the four ways -------------------------------------------------------------------------


async def test_a_missing_key_is_named_and_never_falls_through(database_url: str) -> None:
    """kubernetes#66844: "invalid padding" hides the cause."""
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.put("gone", b"1")
        await log.delete("gone")
        await log.rotate(NEW)
        await log.put("b", b"2")
    async with opened(database_url, NEW, verify="control") as ledger:
        assert await revealed(ledger, "b") == b"2"
        with pytest.raises(MissingKey) as caught:
            await ledger.get("a")
        assert caught.value.details["stream"] == "a"
        assert caught.value.details["key_id"] == "k-old"
        for call in (
            ledger.get("gone"), ledger.put("a", "x"), ledger.delete("a"), ledger.restore("gone"),
        ):  # fmt: skip
            with pytest.raises(MissingKey):
                await call
        assert [i.name async for i in ledger.list(deleted=True)] == ["a", "b", "gone"]
        # The way out without the key: its end, which needs no value.
        await ledger.destroy("a", reason="its key is gone")
        assert (await ledger.put("a", "new")).version == 3
    async with opened(database_url, NEW, OLD, verify="full") as ledger:
        assert await revealed(ledger, "a") == b"new"


async def test_what_a_lost_key_sealed_is_destroyed_and_writes_go_over_it(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log:
        for name in ("a", "gone", "rekeyed"):
            await log.put(name, b"1")
        await log.delete("gone")
        await log.rotate(NEW)
        await log.rekey("rekeyed")
        await log.lose(OLD)
    for keys in ((NEW,), (NEW, OLD)):
        async with opened(database_url, *keys, verify="full") as ledger:
            assert await revealed(ledger, "rekeyed") == b"1"
            for call in (
                ledger.get("a"), ledger.get("gone"), ledger.get("rekeyed", version=1),
                ledger.restore("gone"), ledger.delete("a"),
            ):  # fmt: skip
                with pytest.raises(SecretDestroyed):
                    await call
            states = {i.name: i.state async for i in ledger.list(deleted=True)}
            assert states == {"a": "destroyed", "gone": "destroyed", "rekeyed": "live"}
    async with opened(database_url, NEW) as ledger:
        assert (await ledger.put("a", "2", expect=2)).version == 3
        assert await revealed(ledger, "a") == b"2"
        assert (await ledger.put("gone", "2")).version == 4
        assert (await ledger.verify("full")).ok


async def test_an_event_under_a_key_of_another_time_is_tampered(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.rotate(NEW)
        leaked = log.rows.bound(OLD)
        await log.append(Entry("a", EventType.WRITTEN, b"forged", key=leaked))
    async with opened(database_url, NEW, OLD, verify="control") as ledger:
        for call in (ledger.get("a"), ledger.get("a", version=1), ledger.put("a", "x")):
            with pytest.raises(TamperedEvent, match="was active at its position"):
                await call
        (finding,) = (await ledger.verify("latest")).findings
        assert (finding.stream, finding.kind) == ("a", "tampered")


async def test_a_time_before_a_secret_began_is_not_told_from_its_past_once_it_has_ended(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        earlier = await ledger.put("a", "1")
        await ledger.put("ended", "1")
        await ledger.destroy("ended", reason="leaked")
        await ledger.rotate(NEW)
        await ledger.migrate()
        with pytest.raises(SecretDestroyed):
            await ledger.get("ended", at=earlier.recorded_at)


async def test_a_migrated_ledger_reads_the_same_under_the_new_key_alone(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1", actor="alice")
        await log.put("a", b"2")
        await log.put("ended", b"1")
        await log.destroy("ended", reason="r")
        await log.put("ended", b"3")
        await log.put("gone", b"1")
        await log.delete("gone")
        await log.rotate(NEW)
    async with opened(database_url, NEW, OLD) as ledger:
        before = [await ledger.get("a", version=v) for v in (1, 2)]
    async with building(database_url, OLD, NEW) as log:
        await log.migrate()
        await log.rotate(THIRD)
        await log.migrate()
    async with opened(database_url, THIRD, verify="full") as ledger:
        after = [await ledger.get("a", version=v) for v in (1, 2)]
        for old, new in zip(before, after, strict=True):
            assert (new.value, new.recorded_at, new.actor, new.position) == (
                old.value, old.recorded_at, old.actor, old.position,
            )  # fmt: skip
            assert new.key_id == "k-third"
        with pytest.raises(SecretDestroyed):
            await ledger.get("ended", version=1)
        assert await revealed(ledger, "ended") == b"3"
        await ledger.restore("gone")
        assert await revealed(ledger, "gone") == b"1"
        assert (await ledger.verify("full")).ok
