"""Moving a ledger into another database: the same ledger, beside its writers."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from canary import Watch
from commits import Killed, killed_before_commit
from histories import facts, fill
from independent_fold import read_rows
from ledgers import NEW, OLD, has_tables, opened, refused, rows
from log_builder import building
from moves import (
    Route,
    address,
    command,
    filled,
    half_made,
    only,
    states,
)
from postgresql_server import PASSWORD
from secret_ledger import LedgerMoved, LedgerUnavailable, MigrationInProgress, SecretLedger
from secret_ledger_projections import Inline, default
from test_projections import RotationAge


async def test_the_whole_history_is_the_same_in_the_other_database(route: Route) -> None:
    await filled(route.source)
    async with opened(route.source, NEW, OLD) as ledger:
        await ledger.rotate()
        await ledger.put("after", "the rotation")
        before, end = await facts(ledger), ledger.position
        done = await ledger.migrate(route.target, actor="alice")
        assert (done.changed, done.generation, done.replaced) == (True, 1, 0)
        assert (done.copied, done.purged, done.events) == (end, 2, end + 1)
        assert done.moved_to == address(route.target)
        assert done.locked_seconds <= done.seconds
        assert await facts(ledger) == before
        ledger_id = ledger.ledger_id
    async with opened(route.target, NEW, verify="full", create=False) as ledger:
        assert ledger.ledger_id == ledger_id
        report = await ledger.verify("full")
        assert report.ok, report.findings
        assert await facts(ledger) == before
        assert (await ledger.get("often", version=1)).value.reveal() == b"value 0"
        assert (await ledger.get("back")).value.reveal() == b"here again"
        assert (await ledger.get("large")).value.reveal() == b"large " * 20_000
        assert (await ledger.put("often", "value 3")).position == end + 2
        (only_one,) = await ledger.generations()
        assert (only_one.generation, only_one.state, only_one.needs) == (1, "active", ["k-new"])
    assert await states(route.source) == [(0, "moved"), (1, "purged")]


async def test_under_the_same_key_it_moves_too_and_on_from_there(
    route: Route, tmp_path: Path
) -> None:
    await filled(route.source)
    third = f"sqlite+aiosqlite:///{tmp_path}/third.db"
    assert (await command(route, OLD)).changed
    async with opened(route.target, OLD) as ledger:
        await ledger.put("between", "moves")
        done = await ledger.migrate(third)
        assert (done.generation, done.replaced) == (2, 1)
    async with opened(third, OLD, verify="full") as ledger:
        assert (await ledger.get("often")).value.reveal() == b"value 2"
        await ledger.rotate(NEW)
        assert (await ledger.migrate()).generation == 3
        assert (await ledger.verify("full")).ok


async def test_a_pending_key_is_rotated_to_first(route: Route) -> None:
    await filled(route.source)
    assert (await command(route, NEW, OLD)).key_id == "k-new"
    async with opened(route.target, NEW, verify="full") as ledger:
        assert {info.key_id async for info in ledger.history("often")} == {"k-new"}


async def test_what_was_left_says_where_the_ledger_is_and_is_only_read(route: Route) -> None:
    await filled(route.source)
    async with (
        opened(route.source, OLD, node="mover") as mover,
        opened(route.source, OLD, node="other") as other,
    ):
        await mover.migrate(route.target)
        for ledger in (mover, other):
            with pytest.raises(LedgerMoved) as caught:
                await ledger.put("often", "lost?")
            assert address(route.target) in caught.value.message
            assert (await ledger.get("often")).value.reveal() == b"value 2"
            health = await ledger.health()
            assert not health.ready
            assert address(route.target) in " ".join(health.reasons)
            with pytest.raises(LedgerMoved):
                await ledger.migrate()
            with pytest.raises(LedgerMoved):
                await ledger.rotate(NEW)
            with pytest.raises(LedgerMoved):
                await ledger.abandon_migration(route.target)
        assert (await other.verify("full")).ok
    error = await refused(route.source, LedgerMoved, OLD)
    assert error.details["moved_to"] == address(route.target)
    async with opened(route.source, OLD, read_only=True, read_moved=True, verify="full") as ledger:
        assert (await ledger.get("often")).value.reveal() == b"value 2"
        with pytest.raises(LedgerUnavailable, match="read-only"):
            await ledger.put("often", "lost?")


async def test_running_it_again_says_that_it_was_done(route: Route) -> None:
    await filled(route.source)
    first = await command(route, OLD)
    async with opened(route.target, OLD) as ledger:
        await ledger.put("often", "since")
    before = await rows(route.source, "ledger_node"), await rows(route.target, "ledger_node")
    again = await command(route, OLD)
    assert (again.changed, again.moved_to) == (False, first.moved_to)
    after = await rows(route.source, "ledger_node"), await rows(route.target, "ledger_node")
    assert after == before


async def test_both_sides_say_of_the_move_what_it_was_under_a_seal(route: Route) -> None:
    await filled(route.source)
    await command(route, OLD)
    sides = []
    for url, event_type in ((route.source, "closed"), (route.target, "opened")):
        async with building(url, OLD) as log:
            ((text,),) = await log.execute(
                "SELECT metadata FROM {s}secret_event WHERE event_type = :kind",
                kind=f"generation.{event_type}",
            )
            sides.append(text)
        ((move_id, place),) = await read_rows(url, "SELECT move_id, place FROM ledger_move")
        assert f'"id":"{bytes(move_id).hex()}"' in text
        assert place in text
    assert address(route.target) in sides[0]
    assert address(route.source) in sides[1]


@only
async def test_a_projection_of_one_s_own_goes_on_over_there(route: Route) -> None:
    kept = [*default(), Inline(RotationAge())]
    async with opened(route.source, OLD, projections=kept) as ledger:
        await fill(ledger)
        await ledger.migrate(route.target)
        # The closing event is folded here too: what is left can still be checked.
        assert (await ledger.verify("full")).ok
    current = "SELECT name, state, version FROM sys_secret ORDER BY 1"
    assert await read_rows(route.target, current) == await read_rows(route.source, current)
    async with opened(route.target, OLD, projections=kept) as ledger:
        assert (await ledger.verify("full")).ok
        ((writes,),) = await read_rows(
            route.target, "SELECT writes FROM rotation_age WHERE name = 'often'"
        )
        assert writes == 3


# --- beside writers --------------------------------------------------------------------------


async def test_writers_at_the_source_lose_nothing_that_was_acknowledged(route: Route) -> None:
    await filled(route.source, bulk=1200)
    told: dict[str, bytes] = {}

    async def write(ledger: SecretLedger, task: int) -> None:
        number = 0
        while True:
            number += 1
            name, value = f"w/{task}/{number}", f"{task}-{number}".encode()
            try:
                await ledger.put(name, value)
            except LedgerMoved:
                return
            told[name] = value

    async with (
        opened(route.source, OLD, node="writer") as writer,
        opened(route.source, OLD, node="mover") as mover,
        asyncio.TaskGroup() as group,
    ):
        for task in range(3):
            group.create_task(write(writer, task))
        await mover.migrate(route.target)
    assert len(told) > 3
    async with opened(route.target, OLD, verify="full") as ledger:
        for name, value in told.items():
            assert (await ledger.get(name)).value.reveal() == value
        assert len([i async for i in ledger.list("w/")]) == len(told)


@only
async def test_nothing_else_is_begun_while_a_move_is_under_way(
    route: Route, tmp_path: Path
) -> None:
    await half_made(route)
    async with opened(route.source, OLD) as ledger:
        elsewhere = f"sqlite+aiosqlite:///{tmp_path}/elsewhere.db"
        for call in (
            ledger.migrate(elsewhere, dry_run=True),
            ledger.migrate(elsewhere),
            ledger.migrate(dry_run=True),
            ledger.migrate(),
            ledger.rotate(NEW),
        ):
            with pytest.raises(MigrationInProgress) as caught:
                await call
            assert address(route.target) in caught.value.message
            assert "--abandon --to" in caught.value.hint
        assert not (tmp_path / "elsewhere.db").exists()
        await ledger.put("often", "goes on")
    assert (await command(route, OLD, NEW)).changed
    async with opened(route.target, OLD, verify="full") as ledger:
        assert (await ledger.get("often")).value.reveal() == b"goes on"


@only
async def test_no_move_is_begun_while_a_migration_is_under_way(route: Route) -> None:
    await filled(route.source, bulk=1200)
    async with opened(route.source, OLD) as ledger:
        await ledger.rotate(NEW)
        with pytest.raises(Killed), killed_before_commit(3):
            await ledger.migrate()
        for dry_run in (False, True):
            with pytest.raises(MigrationInProgress, match="is being built here"):
                await ledger.migrate(route.target, dry_run=dry_run)
        assert not await has_tables(route.target)
        assert (await ledger.migrate()).changed
        assert (await ledger.migrate(route.target)).generation == 2


@only
async def test_of_two_that_move_it_at_once_none_harms_the_other(route: Route) -> None:
    await filled(route.source, bulk=1200)
    async with (
        opened(route.source, OLD, node="one") as one,
        opened(route.source, OLD, node="two") as two,
    ):
        outcomes = await asyncio.gather(
            one.migrate(route.target), two.migrate(route.target), return_exceptions=True
        )
    errors = [o for o in outcomes if isinstance(o, BaseException)]
    kinds = (MigrationInProgress, LedgerMoved, LedgerUnavailable)
    assert all(isinstance(error, kinds) for error in errors), errors
    await command(route, OLD)
    async with opened(route.target, OLD, verify="full") as ledger:
        assert (await ledger.get("often")).value.reveal() == b"value 2"


# --- secrets stay secret ---------------------------------------------------------------------


async def test_no_credentials_are_shown_or_kept_anywhere(
    sqlite_url: str, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch({"the password": PASSWORD.encode()})
    wrong = make_url(postgres_url).set(database="no_such_database")
    unreachable = wrong.render_as_string(hide_password=False)
    with caplog.at_level(logging.DEBUG):
        async with opened(sqlite_url, OLD) as ledger:
            await ledger.put("a", "1")
            for url in (unreachable, unreachable.replace("postgresql", "nosql")):
                for call in (ledger.migrate, ledger.abandon_migration):
                    with pytest.raises(LedgerUnavailable) as caught:
                        await call(url)
                    watch.look_at_error(caught.value)
                never_begun = ledger.migrate(url)
                watch.look_at_object(never_begun)
                watch.look("a coroutine's locals", repr(never_begun.cr_frame.f_locals))  # type: ignore[attr-defined]
                never_begun.close()
            with pytest.raises(Killed) as killed, killed_before_commit(4):
                await ledger.migrate(postgres_url)
            watch.look_at_error(killed.value)
            watch.look_at_object(await ledger.migrate(postgres_url))
            with pytest.raises(LedgerMoved) as caught_moved:
                await ledger.put("a", "2")
            watch.look_at_error(caught_moved.value)
            watch.look_at_object(await ledger.health())
    for url in (sqlite_url, postgres_url):
        watch.look("the rows", repr(await rows(url)))
        kept = await read_rows(url, "SELECT place FROM ledger_move")
        assert kept
        assert "@" not in repr(kept)
    watch.look("the log", caplog.text)
    assert watch.looked_at > 10_000
    assert not watch.found, "\n".join(watch.found)
