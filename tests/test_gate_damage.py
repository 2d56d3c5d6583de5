"""Step 3 of the boot gate comes before step 4: damage is never reported as a wrong key."""

from __future__ import annotations

import pytest

from attacker import attacking
from inside import EventType
from ledgers import NEW, OLD, STRANGER, refused
from log_builder import building
from log_rows import Entry
from secret_ledger import Key, TamperedEvent


@pytest.mark.parametrize("key", [OLD, STRANGER], ids=["right key", "wrong key"])
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE {s}ledger_head SET key_epoch = 3",
        "UPDATE {s}ledger_head SET position = position + 1",
        "UPDATE {s}ledger_head SET position = 1",
        "UPDATE {s}ledger_head SET recorded_at = recorded_at + 1",
        "UPDATE {s}ledger_head SET state = 'moved'",
        "UPDATE {s}ledger_head SET state = 'closed'",
        "DELETE FROM {s}ledger_head",
        "UPDATE {s}ledger_meta SET format = 0",
        "DELETE FROM {s}ledger_meta",
    ],
)
async def test_damage_is_never_reported_as_a_wrong_key(
    database_url: str, damage: str, key: Key
) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.execute(damage)
    for read_only in (False, True):
        await refused(database_url, TamperedEvent, key, read_only=read_only)


@pytest.mark.parametrize("key", [OLD, STRANGER], ids=["right key", "planted key"])
async def test_a_planted_key_row_is_damage_also_to_its_holder(database_url: str, key: Key) -> None:
    async with building(database_url, OLD) as log:
        await log.database.run(lambda c: log.rows.add_key(c, log.rows.bound(STRANGER)), "write")
    await refused(database_url, TamperedEvent, key)


async def test_a_closed_generation_that_says_active_is_tampered(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.migrate()
        await log.set_head(1, state="closed")
        await log.set_head(0, state="active")
    await refused(database_url, TamperedEvent, OLD)


async def test_two_generations_in_use_are_tampered(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.migrate()
        await log.execute("DROP INDEX {s}ledger_head_one_in_use")
        await log.set_head(0, state="moved")
    await refused(database_url, TamperedEvent, OLD)
    await refused(database_url, TamperedEvent, STRANGER, read_only=True)


async def test_an_unopened_copy_that_says_active_is_tampered(
    database_url: str, sqlite_url: str
) -> None:
    target = sqlite_url.replace("ledger.db", "target.db")
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.build_at(target)
    async with building(target, OLD) as copy:
        await copy.set_head(1, state="active")
    await refused(target, TamperedEvent, OLD)


async def test_a_damaged_secret_is_not_crowded_out_by_missing_keys(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.append(*(Entry(f"n/{n}", EventType.WRITTEN, b"x") for n in range(1001)))
        await log.put("z", b"1")
        await log.rotate(NEW)
    async with attacking(database_url) as attacker:
        await attacker.sql("UPDATE secret_event SET metadata = '{ }' WHERE stream = 'z'")
    error = await refused(database_url, TamperedEvent, NEW)
    assert error.details["stream"] == "z"


async def test_a_superseded_version_that_lies_in_another_stream_is_tampered(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log:
        for stream in ("a", "a", "a", "b", "b"):
            await log.put(stream, b"1")
    async with attacking(database_url) as attacker:
        await attacker.loosen("secret_event")
        # Both heads open, no position is missing, and the lowest version of each is 1.
        await attacker.sql(
            "UPDATE secret_event SET stream = 'b' WHERE stream = 'a' AND version = 2"
        )
        await attacker.sql("UPDATE secret_event SET version = 1 WHERE position = 5")
    error = await refused(database_url, TamperedEvent, OLD, verify="full")
    assert "b version 1 at position 5: it does not follow the version before it" in error.message
