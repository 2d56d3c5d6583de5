"""A move that is killed at any moment: the same command goes on, and two ledgers never."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from pathlib import Path

import pytest

from commits import Killed, killed_before_commit
from fleet import start
from inside import BULK
from ledgers import OLD, file_of, opened, refused
from log_builder import building
from moves import (
    Route,
    accepts_writes,
    address,
    command,
    filled,
    half_made,
    handed_over,
    meanwhile,
    only,
    quiet,
    states,
)
from secret_ledger import LedgerMoved, LedgerUnavailable, Progress, TamperedEvent, WrongLedger


async def test_killed_between_any_two_steps_the_same_command_goes_on(route: Route) -> None:
    await filled(route.source, bulk=BULK + 100)
    seen: list[tuple[bool, bool]] = []
    done = None
    while done is None:
        try:
            done = await command(route, OLD, dies=2)
        except Killed:
            value = str(len(seen)) if len(seen) < 2 else None
            seen.append(
                (await accepts_writes(route.source, value), await accepts_writes(route.target))
            )
            assert len(seen) < 20
    # Nothing there yet; the half begun; two pages copied; handed over.
    assert seen == [(True, False)] * 4 + [(False, False)]
    async with opened(route.target, OLD, verify="full") as ledger:
        assert (await ledger.get("told")).value.reveal() == b"1"
        assert len([i async for i in ledger.list("bulk/")]) == BULK + 100
        report = await ledger.verify("full")
        assert report.ok, report.findings
    await refused(route.source, LedgerMoved, OLD)


@pytest.mark.parametrize("commits", [1, 2, 3, 4])
@only
async def test_what_is_written_between_the_proof_and_the_hand_over_is_carried_too(
    route: Route, commits: int
) -> None:
    await filled(route.source)
    told: list[Progress] = []

    async def write() -> None:
        async with opened(route.source, OLD, node="writer") as writer:
            await writer.put("told", "at the last moment")

    async with quiet(route.source, OLD) as ledger:
        with ExitStack() as armed, contextlib.suppress(Killed):

            def tell(made: Progress) -> None:
                if made.done == made.total and not told:
                    told.append(made)
                    meanwhile(write)
                    # The hand-over; the page that is left; the opening.
                    armed.enter_context(killed_before_commit(commits))

            await ledger.migrate(route.target, on_progress=tell)
    sides = await accepts_writes(route.source), await accepts_writes(route.target)
    assert sides == [(True, False), (False, False), (False, False), (False, True)][commits - 1]
    done = await command(route, OLD)
    assert (done.changed, done.copied) == [(True, 1), (True, 1), (True, 0), (False, 0)][commits - 1]
    async with opened(route.target, OLD, verify="full") as ledger:
        assert (await ledger.get("told")).value.reveal() == b"at the last moment"


async def test_after_the_hand_over_the_same_target_alone_is_gone_on_with(
    route: Route, tmp_path: Path
) -> None:
    await handed_over(route)
    assert not await accepts_writes(route.source)
    assert not await accepts_writes(route.target)
    elsewhere = f"sqlite+aiosqlite:///{tmp_path}/elsewhere.db"
    async with opened(route.source, OLD, read_only=True, read_moved=True) as ledger:
        assert (await ledger.get("often")).value.reveal() == b"value 2"
        for dry_run in (True, False):
            with pytest.raises(WrongLedger) as caught:
                await ledger.migrate(elsewhere, dry_run=dry_run)
            assert address(route.target) in caught.value.message
        assert not (tmp_path / "elsewhere.db").exists()
        with pytest.raises(LedgerUnavailable, match="read-only"):
            await ledger.abandon_migration(route.target)
        would = await ledger.migrate(route.target, dry_run=True)
        assert (would.changed, would.dry_run, would.generation) == (True, True, 1)
        assert await states(route.target) == [(1, "building")]
        done = await ledger.migrate(route.target)
        assert (done.changed, done.generation, done.replaced) == (True, 1, 0)
    assert await accepts_writes(route.target)
    assert not await accepts_writes(route.source)


async def test_a_target_of_another_move_is_not_opened_by_this_one(route: Route) -> None:
    await handed_over(route)
    async with building(route.target, OLD) as log:
        await log.execute("UPDATE {s}ledger_move SET move_id = :id", id=bytes(16))
    with pytest.raises(WrongLedger):
        await command(route, OLD)
    assert await states(route.target) == [(1, "building")]


@pytest.mark.slow
@only
async def test_a_process_that_is_killed_at_any_commit_leaves_one_ledger_to_write_to(
    route: Route,
) -> None:
    await filled(route.source, bulk=BULK + 100)
    kills = 0
    moved = False
    while True:
        assert kills < 20
        moved = moved or await _has_moved(route.source)
        process = await start(
            route.source,
            OLD,
            f"m{kills}",
            "attend",
            read_only=moved,
            read_moved=moved,
            heartbeat=3600,
        )
        await process.hear("opened")
        process.tell("die 2")
        process.tell(f"move {route.target}")
        if await process.hear("moved"):
            process.tell("stop")
            assert await process.finish() == 0
            break
        assert await process.finish() == -9
        kills += 1
        assert (await accepts_writes(route.source), await accepts_writes(route.target)) != (
            True,
            True,
        )
    assert moved
    assert kills == 5  # nothing there; half begun; two pages; handed over
    async with opened(route.target, OLD, verify="full") as ledger:
        assert len([i async for i in ledger.list("bulk/")]) == BULK + 100
    await refused(route.source, LedgerMoved, OLD)


async def _has_moved(url: str) -> bool:
    return (0, "moved") in await states(url)


async def test_an_older_copy_of_the_source_beside_a_target_in_use_is_named(
    sqlite_url: str, tmp_path: Path
) -> None:
    route = Route(sqlite_url, f"sqlite+aiosqlite:///{tmp_path}/new.db")
    await half_made(route)
    copy = Path(file_of(route.source)).read_bytes()
    assert (await command(route, OLD)).changed
    Path(file_of(route.source)).write_bytes(copy)
    with pytest.raises(TamperedEvent, match="an older copy of the source"):
        await command(route, OLD)
