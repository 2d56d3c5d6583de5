"""A ledger that is open while its control stream changes behind its back."""

from __future__ import annotations

from typing import Any

import pytest

from attacker import attacking, put_back, saved
from inside import Level, verify_ledger
from ledgers import NEW, OLD, THIRD, opened, rows
from log_builder import building
from secret_ledger import (
    LedgerMoved,
    MissingKey,
    SecretDestroyed,
    SecretLedger,
    StaleKey,
    TamperedEvent,
    WrongLedger,
)

LEVELS: tuple[Level, ...] = ("latest", "full")
EVERYTHING = ("secret_event", "ledger_key", "ledger_head")


async def revealed(ledger: SecretLedger, name: str, **which: Any) -> bytes:
    return (await ledger.get(name, **which)).value.reveal()


async def test_a_node_with_both_keys_follows_a_rotation_within_the_same_put(
    database_url: str,
) -> None:
    """akash#3942: rotation wrote to a key that new writes didn't use."""
    async with building(database_url, OLD) as log, opened(database_url, NEW, OLD) as ledger:
        assert (await ledger.put("a", "1")).key_id == "k-old"
        await log.rotate(NEW)
        put = await ledger.put("a", "2")
        assert (put.key_id, put.version) == ("k-new", 2)
        assert await revealed(ledger, "a", version=1) == b"1"
        health = await ledger.health()
        assert health.ready
        assert (health.key_epoch, health.active_key_id) == (3, "k-new")
        assert health.pending_fingerprint is None
        assert (await ledger.verify("full")).ok


async def test_a_node_with_both_keys_follows_a_rotation_within_the_same_get(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log, opened(database_url, NEW, OLD) as ledger:
        await log.rotate(NEW)
        await log.put("a", b"1")
        got = await ledger.get("a")
        assert (got.key_id, got.value.reveal()) == ("k-new", b"1")
        assert [k.state for k in await ledger.key_status()] == ["superseded", "active"]


async def test_a_node_follows_several_rotations_and_losses_at_once(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, THIRD, NEW, OLD) as ledger:
        await ledger.put("a", "1")
        await log.rotate(NEW)
        await log.put("b", b"2")
        await log.rotate(THIRD)
        await log.lose(OLD)
        assert await revealed(ledger, "b") == b"2"
        with pytest.raises(SecretDestroyed):
            await ledger.get("a")
        assert (await ledger.put("a", "3")).key_id == "k-third"


async def test_a_loss_is_followed_before_a_missing_key_is_reported(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.rotate(NEW)
        async with opened(database_url, NEW, verify="control") as ledger:
            with pytest.raises(MissingKey):
                await ledger.get("a")
            await log.lose(OLD)  # the epoch stays the same
            with pytest.raises(SecretDestroyed):
                await ledger.get("a")
            # The loss has ended it with an event of its own, version 2.
            assert (await ledger.put("a", "2")).version == 3


async def test_a_node_that_missed_a_rotation_writes_nothing_and_reads_on(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        assert (await ledger.health()).ready
        async with building(database_url, OLD) as log:
            await log.rotate(NEW)
            await log.put("b", b"2")
        before = await rows(database_url)
        for call in (
            ledger.put("a", "x"),
            ledger.put_many({"c": "x"}),
            ledger.delete("a"),
            ledger.destroy("a", reason="r"),
        ):
            with pytest.raises(StaleKey) as caught:
                await call
            assert caught.value.details["expected_key_id"] == "k-new"
        assert await rows(database_url) == before
        assert await revealed(ledger, "a") == b"1"
        with pytest.raises(MissingKey) as missing:
            await ledger.get("b")
        assert missing.value.details["key_id"] == "k-new"
        health = await ledger.health()
        assert (health.ready, health.state) == (False, "unready")
        assert health.reasons[0].startswith("stale_key")


async def test_health_alone_notices_a_rotation(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger, building(database_url, OLD) as log:
        await log.rotate(NEW)
        health = await ledger.health()
        assert not health.ready
        assert (health.active_key_id, health.key_epoch) == ("k-new", 3)


async def test_an_idle_node_follows_with_its_heartbeat_and_a_stale_one_stays_visible(
    database_url: str,
) -> None:
    async with (
        building(database_url, OLD) as log,
        opened(database_url, NEW, OLD, node="both") as both,
        opened(database_url, OLD, node="stale") as stale,
    ):
        await log.rotate(NEW)
        await both._session.announce()
        await stale._session.announce()
        nodes = {n.node: n for n in await both.nodes()}
        assert (nodes["both"].key_id, nodes["both"].differs) == ("k-new", False)
        assert (nodes["stale"].key_id, nodes["stale"].differs) == ("k-old", True)
        assert nodes["stale"].state == "live"


async def test_verify_follows_before_it_judges(database_url: str) -> None:
    async with (
        building(database_url, OLD) as log,
        opened(database_url, NEW, OLD, projections=()) as ledger,
    ):
        await log.rotate(NEW)
        await log.put("a", b"1")
        for level in LEVELS:
            report = await ledger.verify(level)
            assert report.ok, report.findings
            assert report.by_key["k-new"] > 0


async def test_a_verification_on_old_knowledge_finds_nothing_it_reads_on(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log, opened(database_url, NEW, OLD) as ledger:
        before = ledger._follower.standing
        await log.rotate(NEW)
        await log.put("a", b"1")
        for level in LEVELS:
            assert await verify_ledger(ledger.database, ledger._meta, before, level) is None


async def test_a_flip_of_the_generation_is_followed_by_reads_and_writes(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, NEW, OLD) as ledger:
        await ledger.put("a", "1")
        await log.rotate(NEW)
        await log.migrate()
        assert await revealed(ledger, "a") == b"1"
        assert (await ledger.get("a")).key_id == "k-new"
        put = await ledger.put("a", "2")
        assert put.position == 3 + 1 + 2 + 1 + 1
        events = (await rows(database_url))["secret_event"]
        assert [e[0] for e in events if e[1] == put.position] == [1]
        await log.migrate()
        assert (await ledger.put("a", "3", expect=2)).version == 3
        assert (await ledger.verify("full")).ok
        assert (await ledger.health()).ready


async def test_a_node_with_only_the_old_key_reads_nothing_behind_a_flip(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger, building(database_url, OLD) as log:
        await ledger.put("a", "1")
        await log.rotate(NEW)
        await log.migrate()
        with pytest.raises(MissingKey):
            await ledger.get("a")
        with pytest.raises(StaleKey):
            await ledger.put("a", "2")


async def test_a_process_that_has_the_source_of_a_move_open_reads_on_unready(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger, building(database_url, OLD) as log:
        await ledger.put("a", "1")
        await log.move_away()
        assert await revealed(ledger, "a") == b"1"
        with pytest.raises(LedgerMoved):
            await ledger.put("a", "2")
        assert not (await ledger.health()).ready


# --- what must never happen -------------------------------------------------------------------


async def test_a_log_behind_what_was_seen_is_tampered(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.put("b", "1")
        async with attacking(database_url) as attacker:
            before = await saved(attacker, *EVERYTHING)
            await ledger.put("a", "2")
            await put_back(attacker, before)
        for call in (ledger.get("b"), ledger.put("c", "x"), ledger.delete("b")):
            with pytest.raises(TamperedEvent, match="behind position"):
                await call
        health = await ledger.health()
        assert not health.ready
        assert "behind position" in health.reasons[0]


async def test_a_log_that_grew_anew_past_what_was_seen_is_no_longer_healthy(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger, opened(database_url, OLD) as other:
        await ledger.put("a", "1")
        async with attacking(database_url) as attacker:
            before = await saved(attacker, *EVERYTHING)
            await ledger.put("a", "2")
            await put_back(attacker, before)
        for number in range(3):
            await other.put("b", str(number))
        health = await ledger.health()
        assert not health.ready
        assert "is not the one that this node has seen" in health.reasons[0]
        assert (await other.health()).ready


async def test_a_control_stream_that_got_shorter_is_tampered(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, NEW, OLD) as ledger:
        await ledger.put("a", "1")
        async with attacking(database_url) as attacker:
            before = await saved(attacker, *EVERYTHING)
            await log.rotate(NEW)
            position = (await ledger.put("a", "2")).position
            await put_back(attacker, before)
            # As long a log as before, without the rotation in it.
            while (await log.put("filler", b"x")).position < position:
                pass
        for call in (ledger.get("a"), ledger.put("a", "x"), ledger.verify()):
            with pytest.raises(TamperedEvent, match="verified before"):
                await call
        assert not (await ledger.health()).ready


async def test_a_control_stream_with_another_past_is_tampered(database_url: str) -> None:
    async with (
        building(database_url, OLD) as log,
        opened(database_url, NEW, OLD, THIRD) as ledger,
    ):
        await ledger.put("a", "1")
        async with attacking(database_url) as attacker:
            before = await saved(attacker, *EVERYTHING)
            await log.rotate(NEW)
            await ledger.put("a", "2")
            await put_back(attacker, before)
            await log.rotate(THIRD)
            await log.rotate(NEW)
            await log.put("filler", b"x")
        for call in (ledger.get("a"), ledger.put("a", "x")):
            with pytest.raises(TamperedEvent, match="verified before"):
                await call


async def test_an_older_generation_put_back_into_use_is_tampered(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger, building(database_url, OLD) as log:
        await ledger.put("a", "1")
        await log.migrate()
        await ledger.put("a", "2")
        await log.set_head(1, state="purged")
        await log.set_head(0, state="active", position=ledger.position)
        for call in (ledger.get("a"), ledger.put("a", "x")):
            with pytest.raises(TamperedEvent):
                await call


async def test_another_ledger_in_its_place_is_told_apart(postgres_url: str) -> None:
    async with opened(postgres_url, OLD, schema="first") as ledger:
        await ledger.put("a", "1")
        async with opened(postgres_url, NEW, schema="second") as second:
            for name in ("x", "y", "z"):
                await second.put(name, "1")
            await second.put("a", "theirs")
        async with building(postgres_url, THIRD) as log:
            await log.execute("ALTER SCHEMA first RENAME TO gone")
            await log.execute("ALTER SCHEMA second RENAME TO first")
        with pytest.raises(WrongLedger):
            await ledger.get("a")
        assert not (await ledger.health()).ready
