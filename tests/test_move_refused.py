"""What a move refuses: wrong targets, damage on either side; and giving it up."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from attacker import attacking
from inside import BULK, connect
from ledgers import NEW, OLD, STRANGER, file_of, has_tables, opened, rows
from log_builder import building
from moves import (
    Route,
    address,
    command,
    filled,
    half_made,
    meanwhile,
    only,
    quiet,
    states,
    tables,
)
from secret_ledger import (
    InvalidKey,
    Keyring,
    LedgerError,
    LedgerUnavailable,
    MigrationInProgress,
    NotALedger,
    Progress,
    SecretLedger,
    TamperedEvent,
    WrongLedger,
)

# --- proven ----------------------------------------------------------------------------------


@only
async def test_an_edit_in_the_target_is_found_before_the_source_is_closed(route: Route) -> None:
    await half_made(route)
    async with attacking(route.target) as attacker:
        await attacker.sql(
            "UPDATE secret_event SET recorded_at = recorded_at + 1 WHERE position = 9"
        )
    with pytest.raises(TamperedEvent, match="generation 1 differs from its originals"):
        await command(route, OLD)
    assert await states(route.source) == [(0, "active"), (1, "building")]
    async with opened(route.source, OLD) as ledger:
        await ledger.put("often", "goes on")
        await ledger.abandon_migration(route.target)
        assert (await ledger.migrate(route.target)).changed
    async with opened(route.target, OLD, verify="full") as ledger:
        assert (await ledger.get("often")).value.reveal() == b"goes on"


@only
async def test_a_damaged_event_stops_it_with_the_list_before_the_source_is_closed(
    route: Route,
) -> None:
    await filled(route.source)
    async with attacking(route.source) as attacker:
        await attacker.sql(
            "UPDATE secret_event SET metadata = '{\"a\":1}' WHERE stream = 'often' AND version = 1"
        )
    async with opened(route.source, OLD) as ledger:
        for dry_run in (True, False):
            with pytest.raises(TamperedEvent, match="1 damaged: often version 1"):
                await ledger.migrate(route.target, dry_run=dry_run)
        await ledger.put("often", "goes on")
    assert await states(route.target) == [(1, "building")]


@only
async def test_what_is_damaged_between_the_proof_and_the_hand_over_stops_it_too(
    route: Route,
) -> None:
    await filled(route.source)
    told: list[Progress] = []

    async def damage() -> None:
        async with opened(route.source, OLD, node="writer") as writer:
            await writer.put("late", "1")
        async with attacking(route.source) as attacker:
            await attacker.sql("UPDATE secret_event SET recorded_at = 1 WHERE stream = 'late'")

    def tell(made: Progress) -> None:
        if made.done == made.total and not told:
            told.append(made)
            meanwhile(damage)

    async with quiet(route.source, OLD) as ledger:
        with pytest.raises(TamperedEvent, match="late version 1"):
            await ledger.migrate(route.target, on_progress=tell)
        assert (await ledger.get("often")).value.reveal() == b"value 2"
    assert await states(route.source) == [(0, "active"), (1, "building")]


@only
async def test_keys_of_the_target_that_are_not_the_ledger_s_are_found(route: Route) -> None:
    await half_made(route)
    async with attacking(route.target) as attacker:
        await attacker.sql("UPDATE ledger_key SET key_id = 'k-other'")
    with pytest.raises(TamperedEvent, match="ledger_key"):
        await command(route, OLD)


# --- the wrong target ------------------------------------------------------------------------

OF_OPENING = ("ledger_node", "ledger_attestation")
"""Tables that whoever opens a ledger writes to."""


async def unchanged(route: Route, kind: type[LedgerError], target: str, *words: str) -> None:
    """Refused, dry or not, with these words, and nothing is written on either side."""
    before = await rows(route.source, *OF_OPENING)
    there = await rows(target, *OF_OPENING) if await has_tables(target) else None
    async with opened(route.source, OLD) as ledger:
        for dry_run in (True, False):
            with pytest.raises(kind) as caught:
                await ledger.migrate(target, dry_run=dry_run)
            assert type(caught.value) is kind
            shown = f"{caught.value.message}\n{caught.value.hint}"
            assert all(word in shown for word in words), shown
    assert await rows(route.source, *OF_OPENING) == before
    assert (await rows(target, *OF_OPENING) if await has_tables(target) else None) == there


async def test_another_ledger_is_no_target(route: Route) -> None:
    await filled(route.source)
    async with opened(route.target, STRANGER) as ledger:
        other = ledger.ledger_id
    await unchanged(route, WrongLedger, route.target, "holds another ledger", other)


@only
async def test_the_source_itself_is_no_target_and_neither_is_a_ledger_that_moved_away(
    route: Route, tmp_path: Path
) -> None:
    await filled(route.source)
    await unchanged(route, WrongLedger, route.source, "the source itself")
    await command(route, OLD)
    back = Route(route.target, route.source)
    await unchanged(back, WrongLedger, route.source, "the source itself, or a copy")


async def test_a_host_s_sqlite_file_is_no_target(sqlite_url: str, tmp_path: Path) -> None:
    route = Route(sqlite_url, f"sqlite+aiosqlite:///{tmp_path}/host.db")
    await filled(route.source)
    plain = sqlite3.connect(file_of(route.target))
    plain.execute("CREATE TABLE orders (id)")
    plain.close()
    before = Path(file_of(route.target)).read_bytes()
    await unchanged(route, NotALedger, route.target, "another application's tables")
    assert Path(file_of(route.target)).read_bytes() == before


async def test_a_host_s_postgresql_database_is_one_with_a_schema_of_its_own(
    sqlite_url: str, postgres_url: str
) -> None:
    await filled(sqlite_url)
    database = connect(postgres_url)
    await database.run(lambda c: c.exec_driver_sql("CREATE TABLE orders (id int)"), "write")
    await database.run(lambda c: c.exec_driver_sql("CREATE SCHEMA vault"), "write")
    await database.run(lambda c: c.exec_driver_sql("CREATE TABLE vault.notes (id int)"), "write")
    await database.close()
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.migrate(postgres_url, target_schema="vault")
    async with opened(postgres_url, OLD, schema="vault", verify="full") as ledger:
        assert (await ledger.get("often")).value.reveal() == b"value 2"
    assert not await has_tables(postgres_url)


async def test_from_one_schema_to_another_of_the_same_database(postgres_url: str) -> None:
    await filled(postgres_url)
    async with opened(postgres_url, OLD) as ledger:
        await ledger.migrate(postgres_url, target_schema="other")
    async with opened(postgres_url, OLD, schema="other", verify="full") as ledger:
        assert (await ledger.put("often", "value 3")).version == 4


async def test_memory_is_no_target(sqlite_url: str) -> None:
    await filled(sqlite_url)
    async with opened(sqlite_url, OLD) as ledger:
        with pytest.raises(NotALedger, match="in memory"):
            await ledger.migrate("sqlite+aiosqlite://")
        for url in ("mysql://user@host/x", "no url at all"):
            with pytest.raises(LedgerUnavailable):
                await ledger.migrate(url)
    assert await states(sqlite_url) == [(0, "active")]
    async with SecretLedger.open("sqlite+aiosqlite://", Keyring.ephemeral()) as ledger:
        with pytest.raises(InvalidKey, match="ephemeral"):
            await ledger.migrate(sqlite_url.replace("ledger.db", "new.db"))


async def test_a_postgresql_database_of_another_encoding_is_no_target(
    sqlite_url: str, postgres_url: str
) -> None:
    await filled(sqlite_url)
    ascii_only = f"test_{uuid.uuid4().hex}"
    plain = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await plain.execute(
        f"CREATE DATABASE {ascii_only} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
    )
    target = make_url(postgres_url).set(database=ascii_only)
    try:
        route = Route(sqlite_url, target.render_as_string(hide_password=False))
        await unchanged(route, NotALedger, route.target, "not UTF8")
    finally:
        await plain.execute(f"DROP DATABASE {ascii_only} WITH (FORCE)")
        await plain.close()


async def test_a_target_that_can_not_be_made_leaves_the_source_as_it_was(
    sqlite_url: str, tmp_path: Path
) -> None:
    await filled(sqlite_url)
    target = f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/new.db"
    async with opened(sqlite_url, OLD) as ledger:
        with pytest.raises(LedgerUnavailable):
            await ledger.migrate(target)
        assert (await ledger.rotate(NEW)).changed
    assert await states(sqlite_url) == [(0, "active")]


async def test_a_dry_run_writes_nothing_on_either_side(route: Route) -> None:
    await filled(route.source)
    before = await rows(route.source, "ledger_node")
    async with opened(route.source, OLD, read_only=True) as ledger:
        assert (await ledger.migrate(route.target, dry_run=True)).changed
    async with opened(route.source, NEW, OLD, read_only=True) as ledger:
        would = await ledger.migrate(route.target, dry_run=True)
        assert (would.changed, would.dry_run, would.generation) == (True, True, 1)
        assert (would.key_id, would.moved_to) == ("k-new", address(route.target))
        assert would.bytes > 0
    assert await rows(route.source, "ledger_node") == before
    if route.target.startswith("sqlite"):
        assert not Path(file_of(route.target)).exists()
    else:
        assert not await has_tables(route.target)


# --- given up --------------------------------------------------------------------------------


async def test_abandoned_both_sides_are_as_they_were_and_it_can_be_begun_again(
    route: Route,
) -> None:
    await half_made(route)
    async with opened(route.source, OLD) as ledger:
        given_up = await ledger.abandon_migration(route.target)
        assert (given_up.changed, given_up.generation, given_up.deleted) == (True, 1, BULK)
        assert given_up.left_at is None
        assert not await tables(route.target)
        again = await ledger.abandon_migration(route.target)
        assert (again.changed, again.deleted) == (False, 0)
        assert (await ledger.verify("full")).ok
        assert (await ledger.rotate(NEW)).changed
        assert (await ledger.migrate(route.target)).generation == 2
    async with opened(route.target, NEW, verify="full") as ledger:
        assert (await ledger.get("often")).value.reveal() == b"value 2"


async def test_abandoned_here_alone_it_says_what_is_left_there_and_clears_it_later(
    route: Route,
) -> None:
    await half_made(route)
    async with opened(route.source, OLD) as ledger:
        given_up = await ledger.abandon_migration()
        assert (given_up.changed, given_up.left_at) == (True, address(route.target))
        another = "the unfinished copy of another move"
        with pytest.raises(MigrationInProgress, match=another) as caught:
            await ledger.migrate(route.target)
        assert address(route.source) in caught.value.message
        assert "--abandon --to" in caught.value.hint
        cleared = await ledger.abandon_migration(route.target)
        assert (cleared.changed, cleared.deleted, cleared.left_at) == (True, BULK, None)
        assert not await tables(route.target)
        assert (await ledger.migrate(route.target)).changed


async def test_nothing_but_an_abandoned_half_is_ever_cleared(route: Route) -> None:
    await filled(route.source)
    async with opened(route.target, OLD) as ledger:
        await ledger.put("kept", "1")
    before = await rows(route.target, "ledger_node")
    async with opened(route.source, OLD) as ledger:
        with pytest.raises(WrongLedger, match="no unfinished copy of a move"):
            await ledger.abandon_migration(route.target)
        with pytest.raises(WrongLedger, match="no unfinished copy of a move"):
            await ledger.abandon_migration(route.source)
        assert (await ledger.get("often")).value.reveal() == b"value 2"
    assert await rows(route.target, "ledger_node") == before


@only
async def test_the_half_of_another_source_is_neither_gone_on_with_nor_cleared(
    route: Route, tmp_path: Path
) -> None:
    other = Route(f"sqlite+aiosqlite:///{tmp_path}/other.db", route.target)
    await half_made(other)
    await filled(route.source)
    await unchanged(route, WrongLedger, route.target, "another ledger")
    before = await rows(route.target)
    async with opened(route.source, OLD) as ledger:
        with pytest.raises(WrongLedger, match="no unfinished copy of a move"):
            await ledger.abandon_migration(route.target)
    assert await rows(route.target) == before
    assert (await command(other, OLD)).changed


@only
async def test_a_target_in_use_is_not_cleared_by_an_older_copy_of_its_source(
    route: Route,
) -> None:
    await half_made(route)
    async with opened(route.source, OLD) as ledger:
        await ledger.abandon_migration()
    async with building(route.target, OLD) as log:
        await log.set_head(1, state="active")
    before = await rows(route.target)
    async with opened(route.source, OLD) as ledger:
        with pytest.raises(WrongLedger, match="no unfinished copy of a move"):
            await ledger.abandon_migration(route.target)
    assert await rows(route.target) == before


@only
async def test_a_move_that_is_abandoned_while_it_runs_hands_nothing_over(route: Route) -> None:
    await filled(route.source)

    for target in (None, route.target):

        async def give_up(target: str | None = target) -> None:
            async with opened(route.source, OLD, node="other") as other:
                assert (await other.abandon_migration(target)).changed

        def tell(made: Progress, work: Callable[[], Coroutine[Any, Any, None]] = give_up) -> None:
            if made.done == made.total:
                meanwhile(work)

        async with quiet(route.source, OLD, node="mover") as mover:
            with pytest.raises((MigrationInProgress, LedgerUnavailable)):
                await mover.migrate(route.target, on_progress=tell)
            await mover.put("often", "goes on")
            await mover.abandon_migration(route.target)
    assert await states(route.source) == [(0, "active"), (1, "purged"), (2, "purged")]
    assert not await tables(route.target)
