"""What was begun and overtaken: a key that came meanwhile, head rows that nobody of ours wrote;
and that what can be refused is refused before the first step that can't be undone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from attacker import attacking
from doomed import do
from histories import facts, fill
from ledgers import NEW, OLD, THIRD, opened
from moves import Route, filled, half_made, only, quiet, states
from secret_ledger import (
    LedgerError,
    MigrationInProgress,
    NodeNotReady,
    SecretLedger,
    TamperedEvent,
    WrongLedger,
)

# --- a key that came meanwhile ---------------------------------------------------------------


async def test_an_interrupted_migration_is_finished_before_the_key_that_came_since_takes_over(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await fill(ledger)
        await ledger.rotate(NEW)
        await do(ledger, "begin")
    async with opened(database_url, THIRD, NEW, OLD) as ledger:
        before = await facts(ledger)
        with pytest.raises(MigrationInProgress, match="under the active key"):
            await ledger.rotate()
        would = await ledger.migrate(dry_run=True)
        assert (would.generation, would.key_id) == (2, "k-third")
        done = await ledger.migrate()
        assert (done.changed, done.generation, done.key_id) == (True, 2, "k-third")
        assert await facts(ledger) == before
        await ledger.purge_generation(0)
        await ledger.purge_generation(1)
    async with opened(database_url, THIRD, verify="full") as ledger:
        assert (await ledger.get("often", version=1)).value.reveal() == b"value 0"


@only
async def test_an_interrupted_move_is_finished_and_the_key_that_came_since_waits_over_there(
    route: Route,
) -> None:
    await half_made(route)
    async with quiet(route.source, NEW, OLD) as ledger:
        done = await ledger.migrate(route.target)
        assert (done.moved_to is not None, done.key_id) == (True, "k-old")
    async with opened(route.target, NEW, OLD, verify="full") as ledger:
        assert (await ledger.rotate()).changed


async def test_a_node_that_can_not_read_the_new_key_is_named_before_anything_is_finished(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.rotate(NEW)
        await do(ledger, "begin")
    async with (
        opened(database_url, NEW, OLD, node="behind"),
        opened(database_url, THIRD, NEW, OLD) as ledger,
    ):
        with pytest.raises(NodeNotReady, match="behind"):
            await ledger.migrate()
        assert await states(database_url) == [(0, "active"), (1, "building")]
        assert (await ledger.migrate(force_reason="it is restarted next")).key_id == "k-third"


# --- head rows that nobody of ours wrote ------------------------------------------------------

HIGHEST = 2**31 - 1


@pytest.mark.parametrize("number", [HIGHEST, 7])
@pytest.mark.parametrize("state", ["purged", "purging"])
async def test_a_planted_head_row_keeps_nobody_from_migrating(
    database_url: str, number: int, state: str
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        async with attacking(database_url) as attacker:
            await attacker.insert_rows("ledger_head", [(number, 0, 0, 1, state)])
        await ledger.rotate(NEW)
        assert (await ledger.migrate()).generation == 1
        assert (await ledger.get("a")).value.reveal() == b"1"


async def test_a_planted_head_row_of_what_is_being_built_is_thrown_away_and_not_filled(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        async with attacking(database_url) as attacker:
            await attacker.insert_rows("ledger_head", [(HIGHEST, 0, 0, 1, "building")])
        for refused in (ledger.migrate, lambda: ledger.rotate(NEW)):
            with pytest.raises(TamperedEvent, match="but the next generation is 1") as caught:
                await refused()
            assert "--abandon" in caught.value.hint
        assert (await ledger.abandon_migration()).changed
        await ledger.rotate(NEW)
        assert (await ledger.migrate()).generation == 1


async def test_a_number_that_was_given_up_is_never_taken_again(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.rotate(NEW)
        for _ in range(2):
            await do(ledger, "begin")
            await ledger.abandon_migration()
        assert (await ledger.migrate()).generation == 3


async def test_a_closed_head_row_above_the_one_in_use_is_refused_at_boot(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
    async with attacking(database_url) as attacker:
        await attacker.insert_rows("ledger_head", [(1, 0, 0, 1, "closed")])
    with pytest.raises(TamperedEvent, match="generation 1, which comes later"):
        async with opened(database_url, OLD):
            pass


# --- refused before the first step that can't be undone --------------------------------------


Refusal = Callable[[SecretLedger, Path], Awaitable[object]]


async def to_a_host_s_file(ledger: SecretLedger, folder: Path) -> object:
    import sqlite3

    connection = sqlite3.connect(folder / "host.db")
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    return await ledger.migrate(f"sqlite+aiosqlite:///{folder}/host.db")


async def to_no_folder(ledger: SecretLedger, folder: Path) -> object:
    return await ledger.migrate(f"sqlite+aiosqlite:///{folder}/none/at/all.db")


async def to_another_ledger(ledger: SecretLedger, folder: Path) -> object:
    url = f"sqlite+aiosqlite:///{folder}/another.db"
    async with opened(url, OLD):
        pass
    return await ledger.migrate(url)


async def to_memory(ledger: SecretLedger, folder: Path) -> object:
    return await ledger.migrate("sqlite+aiosqlite:///:memory:")


async def to_nobody_there(ledger: SecretLedger, folder: Path) -> object:
    return await ledger.migrate("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")


async def to_no_kind_of_database(ledger: SecretLedger, folder: Path) -> object:
    return await ledger.migrate("mysql://x")


@pytest.mark.parametrize(
    "refused",
    [
        to_a_host_s_file, to_no_folder, to_another_ledger, to_memory, to_nobody_there,
        to_no_kind_of_database,
    ],
)  # fmt: skip
async def test_a_target_that_is_refused_leaves_the_pending_key_pending(
    database_url: str, refused: Refusal, tmp_path: Path
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
    async with opened(database_url, NEW, OLD) as ledger:
        end = ledger.position
        with pytest.raises(LedgerError):
            await refused(ledger, tmp_path)
        assert [(s.key_id, s.state) for s in await ledger.key_status()] == [
            ("k-old", "active"),
            ("k-new", "pending"),
        ]
        assert ledger.position == end
        assert await states(database_url) == [(0, "active")]


async def test_a_role_that_may_make_nothing_over_there_leaves_the_pending_key_pending(
    sqlite_url: str, own_postgres_url: str
) -> None:
    import asyncpg

    connection = await asyncpg.connect(own_postgres_url.replace("+asyncpg", ""))
    try:
        await connection.execute("DROP ROLE IF EXISTS makes_nothing")
        await connection.execute("CREATE ROLE makes_nothing LOGIN PASSWORD 'x'")
        address = own_postgres_url.split("@")[1]
        async with opened(sqlite_url, OLD) as ledger:
            await ledger.put("a", "1")
        async with opened(sqlite_url, NEW, OLD) as ledger:
            with pytest.raises(LedgerError):
                await ledger.migrate(f"postgresql+asyncpg://makes_nothing:x@{address}")
            assert [s.state for s in await ledger.key_status()] == ["active", "pending"]
        assert await states(sqlite_url) == [(0, "active")]
    finally:
        await connection.execute("DROP ROLE makes_nothing")
        await connection.close()


@only
@pytest.mark.parametrize("mistyped", ["empty", "another ledger"])
async def test_a_mistyped_target_throws_no_half_made_move_away(
    route: Route, mistyped: str, tmp_path: Path
) -> None:
    await half_made(route)
    url = f"sqlite+aiosqlite:///{tmp_path}/typo.db"
    if mistyped == "another ledger":
        await filled(url)
    async with opened(route.source, OLD) as ledger:
        with pytest.raises(WrongLedger, match=r"typo\.db"):
            await ledger.abandon_migration(url)
        assert await states(route.source) == [(0, "active"), (1, "building")]
        assert (await ledger.migrate(route.target)).changed
