"""Two upgraders of one older ledger: they queue, and each numbered file is applied once."""

from __future__ import annotations

import asyncio

from inside import (
    FORMAT,
    SCHEMA_VERSION,
    Connection,
    EventType,
    checkpoint,
    connect,
    steps,
    upgrade,
)
from ledgers import OLD, opened, rows
from log_builder import building
from secret_ledger import Keyring, upgrade_schema


async def test_of_two_upgraders_at_once_both_end_well_and_each_file_is_applied_once(
    database_url: str,
) -> None:
    async with building(database_url, OLD, upto=1) as log:
        await log.put("a", b"1")
    before = await rows(database_url)
    outcomes = await asyncio.gather(
        *(upgrade_schema(database_url, Keyring.of(OLD)) for _ in range(4))
    )
    missing = [name for number, name, _ in steps("sqlite") if number > 1]
    assert sorted(outcomes, key=len) == [[], [], [], missing]
    after = await rows(database_url)
    assert after["ledger_meta"] == [(*before["ledger_meta"][0][:-2], FORMAT, SCHEMA_VERSION)]
    assert after["ledger_key"] == before["ledger_key"]
    (added,) = set(after["secret_event"]) - set(before["secret_event"])
    assert set(after["secret_event"]) > set(before["secret_event"])
    assert EventType.LEDGER_UPGRADED in added
    (old,), (new,) = before["ledger_head"], after["ledger_head"]
    assert (new[1], new[3], new[4]) == (old[1] + 1, old[3] + 1, "active")


async def test_upgraders_of_a_ledger_that_moved_here_queue_too(database_url: str) -> None:
    """The target of a move has no head row of generation 0."""
    async with building(database_url, OLD, upto=1) as log:
        await log.put("a", b"1")
        await log.migrate(move={"id": "0" * 32, "from": "elsewhere"})
        await log.set_head(0, state="purging")
        await log.execute("DELETE FROM {s}secret_event WHERE generation = 0")
        await log.execute("DELETE FROM {s}ledger_head WHERE generation = 0")
    outcomes = await asyncio.gather(
        *(upgrade_schema(database_url, Keyring.of(OLD)) for _ in range(4))
    )
    assert sorted(map(len, outcomes)) == [0, 0, 0, SCHEMA_VERSION - 1]
    async with opened(database_url, OLD, verify="full") as ledger:
        assert (await ledger.get("a")).value.reveal() == b"1"


async def test_an_upgrade_after_another_s_finds_nothing_left_to_apply(database_url: str) -> None:
    async with building(database_url, OLD, upto=1):
        pass
    first, second = connect(database_url), connect(database_url)
    try:
        assert len(await upgrade(first)) == SCHEMA_VERSION - 1
        assert await upgrade(second) == []
    finally:
        await first.close()
        await second.close()


async def test_an_upgrade_folds_sys_secret(database_url: str) -> None:
    async with building(database_url, OLD, upto=2) as log:
        await log.put("a", b"1")
        await log.put("b", b"2")
        last = await log.delete("b")
    await upgrade_schema(database_url, Keyring.of(OLD))
    assert await shown(database_url) == [("a", 1, "live"), ("b", 2, "deleted")]
    async with opened(database_url, OLD) as ledger:
        assert (await ledger.health()).projection_lag == 0
        assert (await ledger.verify("full")).ok
    database = connect(database_url)
    try:
        assert (
            await database.run(lambda c: checkpoint.read(c, database, "sys_secret", 0), "snapshot")
            == last.position + 1  # of `ledger.upgraded`
        )
    finally:
        await database.close()


async def shown(url: str) -> list[tuple[object, ...]]:
    """What `sys_secret` says of each secret."""
    database = connect(url)

    def unit(connection: Connection) -> list[tuple[object, ...]]:
        sql = f"SELECT name, version, state FROM {database.statements.prefix}sys_secret"  # noqa: S608  # its name
        return sorted((tuple(row) for row in connection.exec_driver_sql(sql)), key=repr)

    try:
        return await database.run(unit, "snapshot")
    finally:
        await database.close()
