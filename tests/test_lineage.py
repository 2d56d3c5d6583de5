"""Is it still the log that this process has met? Its newest undamaged events say so."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from attacker import Attacker, attacking, put_back, saved
from inside import REMEMBERED, Connection, LogHead, Met
from ledgers import NEW, OLD, opened
from log_builder import building
from secret_ledger import SecretLedger, TamperedEvent

LATE = 3600.0
"""Seconds: no heartbeat comes by itself."""


async def damage(attacker: Attacker, first: int, last: int) -> None:
    """Change the rows at these positions, so that they open no more."""
    await attacker.sql(
        "UPDATE secret_event SET metadata = '{ }' WHERE position >= $1 AND position <= $2",
        first, last,
    )  # fmt: skip


async def heartbeat(ledger: SecretLedger) -> str | None:
    """What a beat ends with; None if all is well."""
    await ledger._session.announce()
    assert ledger._presence is not None
    return ledger._presence.failure


async def fill(ledger: SecretLedger, names: str, count: int) -> None:
    for number in range(count):
        await ledger.put(f"{names}/{number}", "x")


@pytest.mark.parametrize("damaged", [0, 1, REMEMBERED - 1, REMEMBERED])
async def test_a_loss_is_noticed_also_where_rows_that_would_tell_are_damaged(
    database_url: str, damaged: int
) -> None:
    """The newest of them were lost, and others took their places."""
    async with (
        opened(database_url, OLD, heartbeat=LATE) as ledger,
        opened(database_url, OLD, heartbeat=LATE) as other,
        attacking(database_url) as attacker,
    ):
        await ledger.put("a", "1")
        before = await saved(attacker, "secret_event", "ledger_head", "projection_checkpoint")
        await fill(ledger, "lost", REMEMBERED + 4)
        end = ledger.position
        await put_back(attacker, before)
        await fill(other, "others", REMEMBERED + 5)
        assert other.position > end
        if damaged:
            await damage(attacker, end - damaged + 1, end)
        failure = await heartbeat(ledger)
        assert failure is not None
        if damaged < REMEMBERED:
            assert f"position {end - damaged} is not the one that this node has seen" in failure
        else:
            assert f"none of the last {REMEMBERED} events that this node has seen" in failure
            assert "is intact: each was changed or taken out" in failure
        assert not (await ledger.health()).ready
        if database_url.startswith("postgresql"):  # each connection shows itself again
            with pytest.raises(TamperedEvent):
                await ledger.get("a")


@pytest.mark.parametrize("taken_out", [False, True])
async def test_a_damaged_row_is_for_its_reader_to_name_and_hides_no_other(
    database_url: str, taken_out: bool
) -> None:
    async with (
        opened(database_url, OLD, heartbeat=LATE) as ledger,
        attacking(database_url) as attacker,
    ):
        await fill(ledger, "a", REMEMBERED + 4)
        end = ledger.position
        await damage(attacker, end - REMEMBERED + 2, end)
        if taken_out:
            await attacker.sql("DELETE FROM secret_event WHERE position = $1", end - 1)
        assert await heartbeat(ledger) is None
        assert (await ledger.get("a/0")).version == 1
        with pytest.raises(TamperedEvent):
            await ledger.get(f"a/{REMEMBERED + 3}")


async def test_a_process_that_only_looks_on_meets_the_last_events_at_its_first_beat(
    database_url: str,
) -> None:
    async with opened(database_url, OLD, heartbeat=LATE) as ledger:
        await fill(ledger, "a", 5)
        end = ledger.position
    async with (
        opened(database_url, OLD, heartbeat=LATE) as ledger,
        attacking(database_url) as attacker,
    ):
        assert await heartbeat(ledger) is None
        await damage(attacker, end - 3, end)
        assert await heartbeat(ledger) is None
        assert (await ledger.get("a/0")).version == 1


async def test_a_ledger_whose_last_event_is_damaged_is_opened_to_destroy_what_it_belongs_to(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.put("b", "1")
    async with attacking(database_url) as attacker:
        await damage(attacker, ledger.position, ledger.position)
        async with opened(database_url, OLD, verify="control", heartbeat=LATE) as ledger:
            assert await heartbeat(ledger) is None
            await ledger.destroy("b", reason="damaged")
            assert await heartbeat(ledger) is None
            assert (await ledger.verify()).ok


@pytest.mark.parametrize("met_damaged", ["at boot", "by a beat"])
async def test_a_row_that_was_damaged_and_is_put_back_is_the_one_that_was_met(
    database_url: str, met_damaged: str
) -> None:
    async with opened(database_url, OLD, heartbeat=LATE) as ledger:
        await ledger.put("a", "1")
        end = ledger.position
    async with attacking(database_url) as attacker:
        before = await saved(attacker, "secret_event")
        if met_damaged == "at boot":
            await damage(attacker, end, end)
        async with opened(database_url, OLD, verify="control", heartbeat=LATE) as ledger:
            if met_damaged == "by a beat":
                assert await heartbeat(ledger) is None
                await damage(attacker, end, end)
            assert await heartbeat(ledger) is None
            await put_back(attacker, before)
            assert await heartbeat(ledger) is None
            assert (await ledger.get("a")).version == 1


async def test_a_log_that_was_sealed_anew_by_a_migration_is_the_one_that_was_met(
    database_url: str,
) -> None:
    async with (
        opened(database_url, OLD, heartbeat=LATE) as ledger,
        opened(database_url, OLD, heartbeat=LATE) as other,
        attacking(database_url) as attacker,
    ):
        await fill(ledger, "a", REMEMBERED)
        end = ledger.position
        await other.rotate(NEW, force_reason="test")
        await other.migrate()
        await other.put("b", "1")
        assert await heartbeat(ledger) is None
        await attacker.sql(
            "UPDATE secret_event SET metadata = '{ }' WHERE generation = 1 AND position = $1", end
        )
        assert await heartbeat(ledger) is None


async def test_a_position_that_is_met_while_the_log_is_recognised_makes_no_loss_of_it(
    sqlite_url: str,
) -> None:
    """SQLite's units run on threads of their own, and the event loop goes on meanwhile: here
    between any two lines."""
    async with building(sqlite_url, OLD) as log:
        heads = [
            LogHead(0, event.position, event.recorded_at, 1, "active")
            for event in [await log.put("a", b"x") for _ in range(60)]
        ]
    async with opened(sqlite_url, OLD, heartbeat=LATE) as ledger:
        lineage = ledger._follower.lineage
        lineage._last = None
        lineage.saw(heads[0])
        there = iter(heads[1:])
        end = heads[-1]
        appended = (end._replace(position=end.position + n) for n in range(1, 1000))
        answered = False

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal answered
            if not frame.f_code.co_filename.endswith("lineage.py"):
                return None
            answered = answered or "rows" in frame.f_locals
            if event == "line":
                lineage.saw(next(appended if answered else there))
            return trace

        def unit(connection: Connection) -> Met | None:
            sys.settrace(trace)
            try:
                return lineage.recognise(connection)
            finally:
                sys.settrace(None)

        met = await ledger.database.run(unit, "statement")
        assert met is not None
        assert met.head.position == end.position < lineage.seen


# --- what another node has said in the control stream --------------------------------------------


async def test_a_key_that_another_node_gave_up_is_followed_by_the_next_write(
    database_url: str,
) -> None:
    """It raises no epoch, and nothing was read in between."""
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.rotate(NEW)
        async with opened(database_url, NEW, verify="control", heartbeat=LATE) as ledger:
            async with opened(database_url, NEW, verify="control") as other:
                await other.lost("k-old", reason="the card broke")
            assert (await ledger.put("a", "2")).value.reveal() == b"2"


async def test_a_key_that_another_node_gave_up_is_followed_by_the_next_beat(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.rotate(NEW)
        async with opened(database_url, NEW, verify="control", heartbeat=LATE) as ledger:
            async with opened(database_url, NEW, verify="control") as other:
                await other.lost("k-old", reason="the card broke")
            assert await heartbeat(ledger) is None
            control = ledger._follower.standing.control
            assert [key.id for key in control.keys if key.lost is not None] == ["k-old"]
