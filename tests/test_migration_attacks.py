"""Migrations that somebody tampers with, at every step: refused, or found; never a wrong value.

The attacker, another migrator or a rotation gets in between any two transactions of a
migration. (That is where they can: what a transaction itself lets through is the subject of
test_migration and test_fencing, on both databases.)
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path

import pytest

from attacker import attacking
from between import at_once, interrupted
from doomed import do
from independent_fold import fold_log
from inside import reads
from ledgers import NEW, OLD, THIRD, file_of, opened
from secret_ledger import KeyReused, LedgerError, MigrationInProgress, SecretLedger, TamperedEvent
from victim import Truth, ending, told

EARLY = 4
"""A position of the first page."""


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "PAGE_BYTES", 500)


@pytest.fixture
async def truth(sqlite_url: str) -> Truth:
    """What reads give of a ledger that has just rotated, which lies at `sqlite_url`."""
    async with opened(sqlite_url, OLD) as ledger:
        for n in range(2):
            await ledger.put("often", f"value {n}", actor="alice")
        await ledger.put("ended", "no more")
        await ledger.destroy("ended", reason="leaked")
        await ledger.put("deleted", "x")
        await ledger.delete("deleted")
        await ledger.put_many({f"many/{n}": f"many {n}" for n in range(3)})
    async with opened(sqlite_url, NEW, OLD) as ledger:
        await ledger.rotate()
        await ledger.put("often", "value 2")
        names = [
            (info.name, version)
            async for info in ledger.list(deleted=True)
            for version in range(1, info.version + 1)
        ]
        return await told(ledger, names)


@pytest.fixture
def fresh(sqlite_url: str, truth: Truth) -> Callable[[], str]:
    """Makes copies of that ledger."""
    made = 0

    def copy() -> str:
        nonlocal made
        made += 1
        target = Path(file_of(sqlite_url)).with_name(f"copy-{made}.db")
        shutil.copy(file_of(sqlite_url), target)
        return f"sqlite+aiosqlite:///{target}"

    return copy


def migrator(url: str) -> AbstractAsyncContextManager[SecretLedger]:
    return opened(url, NEW, OLD, node="migrator", verify="control")


Meanwhile = Callable[[str], Awaitable[object]]


async def steps(url: str) -> int:
    """How many transactions a migration takes."""
    async with migrator(url) as ledger:
        async with interrupted(ledger, 0, ledger.nodes) as seen:
            await ledger.migrate()
        return seen.begun


async def interfered(url: str, step: int, meanwhile: Meanwhile) -> LedgerError | None:
    """Migrate, with something done before one of its transactions: how it was refused."""
    async with migrator(url) as ledger, interrupted(ledger, step, lambda: meanwhile(url)):
        try:
            await ledger.migrate()
        except LedgerError as error:
            return error
    return None


async def in_use(url: str) -> tuple[int, str]:
    """The generation that reads resolve to, and where the other one is."""
    async with attacking(url) as attacker:
        states = dict(await attacker.sql("SELECT generation, state FROM ledger_head"))
    (generation,) = (g for g, state in states.items() if state == "active")
    return generation, states.get(1 - generation, "absent")


async def no_wrong_value(url: str, truth: Truth) -> None:
    """Every read that ends with a value ends with the right one."""
    try:
        async with opened(url, NEW, OLD, create=False, verify="control") as ledger:
            for (name, version), end in truth.versions.items():
                assert await ending(ledger, name, version) in (end, TamperedEvent)
            for name, end in truth.latest.items():
                assert await ending(ledger, name) in (end, TamperedEvent)
    except TamperedEvent:
        pass  # nothing is read of it at all


async def is_found(url: str) -> bool:
    """Whether a full verification, or opening, says that something is wrong."""
    try:
        async with opened(url, NEW, OLD, create=False, verify="control") as ledger:
            return not (await ledger.verify("full")).ok
    except TamperedEvent:
        return True


async def works(url: str, truth: Truth) -> None:
    """It is all there, and a migration of it can be made, or was."""
    async with migrator(url) as ledger:
        await ledger.abandon_migration()
        await ledger.migrate()
        report = await ledger.verify("full")
        assert report.ok, report.findings
        for (name, version), end in truth.versions.items():
            assert await ending(ledger, name, version) == end
    await fold_log(url, [NEW, OLD])


async def test_a_source_row_edited_at_any_step_is_named_or_was_copied_as_it_was(
    fresh: Callable[[], str], truth: Truth
) -> None:
    async def edit(url: str) -> None:
        async with attacking(url) as attacker:
            await attacker.sql(
                'UPDATE secret_event SET metadata = \'{"actor":"mallory"}\''
                " WHERE generation = 0 AND position = $1",
                EARLY,
            )

    ends = set[int]()
    for step in range(1, await steps(fresh()) + 1):
        url = fresh()
        error = await interfered(url, step, edit)
        generation, other = await in_use(url)
        ends.add(generation)
        if error is not None:
            assert isinstance(error, TamperedEvent)
            assert f"position {EARLY}" in error.message
            assert (generation, other) in ((0, "building"), (0, "absent"))
        await no_wrong_value(url, truth)
        assert await is_found(url)
    assert ends == {0, 1}


COLUMNS = ("metadata", "sealed", "prev_hash", "event_hash", "recorded_at")


@pytest.mark.parametrize("position", [1, EARLY, 13])
async def test_a_target_row_edited_at_any_step_is_not_put_in_use_or_found(
    fresh: Callable[[], str], truth: Truth, position: int
) -> None:
    """Position 1 is the control stream's, 13 its end; a version follows the one at 4."""
    values: dict[str, object] = {"metadata": "{}", "recorded_at": 7}
    found = 0

    async def scenario(step: int, column: str) -> None:
        nonlocal found
        already: list[bool] = []
        changed: list[bool] = []

        async def edit(url: str) -> None:
            already.append((await in_use(url))[0] == 1)
            async with attacking(url) as attacker:
                rows = await attacker.sql(
                    f"UPDATE secret_event SET {column} = $1"  # noqa: S608  # a column's name
                    " WHERE generation = 1 AND position = $2 RETURNING 1",
                    values.get(column, b"\x01" * 32),
                    position,
                )
                changed.append(bool(rows))

        url = fresh()
        error = await interfered(url, step, edit)
        generation, _ = await in_use(url)
        await no_wrong_value(url, truth)
        if error is not None:
            assert isinstance(error, TamperedEvent), error
            assert generation == int(already == [True]), f"put in use all the same: {error}"
        else:
            assert generation == 1
            assert await is_found(url) == changed[0]
            found += changed[0]

    last = await steps(fresh())
    for step in range(1, last + 1):
        # Each column where the copy has been proven, and is about to be put in use.
        for column in COLUMNS if step > last - 4 else [COLUMNS[step % len(COLUMNS)]]:
            await scenario(step, column)
    assert bool(found) == (position == EARLY)  # else nobody could open it any more


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("position", [1, EARLY, 13])
async def test_a_target_row_edited_before_it_is_read_back_is_refused(
    fresh: Callable[[], str], truth: Truth, position: int, column: str
) -> None:
    url = fresh()
    row = f"WHERE generation = 1 AND position = {position}"
    async with attacking(url) as attacker, migrator(url) as ledger:

        async def is_there() -> bool:
            return bool(await attacker.sql(f"SELECT 1 FROM secret_event {row}"))  # noqa: S608

        async def edit() -> None:
            value = {"metadata": "{}", "recorded_at": 7}.get(column, b"\x01" * 32)
            await attacker.sql(f"UPDATE secret_event SET {column} = $1 {row}", value)  # noqa: S608

        async with at_once(ledger, is_there, edit):
            with pytest.raises(TamperedEvent):
                await ledger.migrate()
    assert (await in_use(url))[0] == 0
    await no_wrong_value(url, truth)
    await works(url, truth)


CHANGES = (
    "position = position + 1", "position = position - 1", "position = 0",
    "position = position + 1000", "recorded_at = recorded_at + 1", "recorded_at = 0",
    "key_epoch = key_epoch + 1", "state = 'closed'", "state = 'purging'",
    "generation = generation + 1",
)  # fmt: skip


async def test_the_building_head_row_changed_at_any_step_ends_in_no_half_made_generation(
    fresh: Callable[[], str], truth: Truth
) -> None:
    refused = set[str]()

    async def scenario(step: int, change: str) -> None:
        async def edit(url: str) -> None:
            async with attacking(url) as attacker:
                await attacker.sql(
                    f"UPDATE ledger_head SET {change} WHERE generation = 1 AND state = 'building'"  # noqa: S608  # constants
                )

        url = fresh()
        error = await interfered(url, step, edit)
        generation, _ = await in_use(url)
        await no_wrong_value(url, truth)
        if error is not None:
            refused.add(change)
            assert isinstance(error, TamperedEvent | MigrationInProgress), error
            assert generation == 0
        else:
            assert not await is_found(url)

    for step in range(1, await steps(fresh()) + 1):
        for change in CHANGES[step % 3 :: 3]:
            await scenario(step, change)
    assert refused >= {change for change in CHANGES if "recorded_at" not in change}


async def test_a_head_row_set_back_or_on_before_it_is_run_again_is_refused_as_tampering(
    fresh: Callable[[], str], truth: Truth
) -> None:
    for change in ("position + 1", "position - 1", "0", "position + 1000"):
        url = fresh()
        await another_begins(url)
        async with attacking(url) as attacker:
            await attacker.sql(
                f"UPDATE ledger_head SET position = {change} WHERE generation = 1"  # noqa: S608  # constants
            )
        async with migrator(url) as ledger:
            with pytest.raises(TamperedEvent):
                await ledger.migrate()
        assert (await in_use(url)) == (0, "building")
        await works(url, truth)


# While one page is read the last one is written: of two at once, either may be refused.


async def another_migrates(url: str) -> None:
    async with migrator(url) as ledger:
        with suppress(MigrationInProgress):
            await ledger.migrate()


async def another_abandons(url: str) -> None:
    async with migrator(url) as ledger:
        with suppress(MigrationInProgress):
            await ledger.abandon_migration()


async def another_begins(url: str) -> None:
    async with migrator(url) as ledger:
        with suppress(MigrationInProgress):
            await do(ledger, "begin")


@pytest.mark.parametrize("meanwhile", [another_migrates, another_abandons, another_begins])
async def test_whatever_another_operator_does_at_any_step_one_generation_is_put_in_use_whole(
    fresh: Callable[[], str], truth: Truth, meanwhile: Meanwhile
) -> None:
    outcomes = set[str]()
    for step in range(1, await steps(fresh()) + 1):
        url = fresh()
        error = await interfered(url, step, meanwhile)
        outcomes.add("done" if error is None else error.code)
        if error is not None:
            assert isinstance(error, MigrationInProgress), error
        generation, other = await in_use(url)
        assert (generation, other) in ((1, "closed"), (0, "purged"), (0, "building"), (0, "absent"))
        await works(url, truth)
    assert outcomes == {"done", "migration_in_progress"}


async def test_a_rotation_at_any_step_is_refused_while_it_is_built_and_else_comes_first(
    fresh: Callable[[], str], truth: Truth
) -> None:
    refusals = 0
    for step in range(1, await steps(fresh()) + 1):
        url = fresh()
        refused: list[bool] = []

        async def rotate(url: str, refused: list[bool] = refused) -> None:
            async with opened(url, THIRD, NEW, OLD, node="rotates", verify="control") as ledger:
                heads = {g.state for g in await ledger.generations()}
                try:
                    await ledger.rotate()
                except MigrationInProgress:
                    assert "building" in heads
                    refused.append(True)
                else:
                    assert "building" not in heads

        async with (
            opened(url, NEW, OLD, THIRD, node="migrator", verify="control") as ledger,
            interrupted(ledger, step, partial(rotate, url)),
        ):
            try:
                await ledger.migrate()
            except KeyReused:  # the configured key is not the active one any more
                assert not refused
        refusals += bool(refused)
        assert (await in_use(url)) in ((0, "absent"), (1, "closed"))
        async with opened(url, NEW, OLD, THIRD, create=False, verify="full") as ledger:
            for (name, version), end in truth.versions.items():
                assert await ending(ledger, name, version) == end
            active = [record for record in await ledger.key_history() if record.state == "active"]
            assert [record.key_id for record in active] == ["k-new" if refused else "k-third"]
        await fold_log(url, [NEW, OLD, THIRD])
    assert refusals


async def test_rows_planted_where_the_next_generation_will_be_keep_it_from_being_put_in_use(
    fresh: Callable[[], str], truth: Truth
) -> None:
    columns = (
        "position, stream, version, event_type, key_id, key_fingerprint, recorded_at, metadata,"
        " prev_hash, sealed, event_hash"
    )
    for place in ("10000", "0", "-5", str(EARLY)):
        for version in ("version", "version + 90"):
            url = fresh()
            async with attacking(url) as attacker:
                row = columns.replace("position", place).replace(" version,", f" {version},")
                await attacker.sql(
                    f"INSERT INTO secret_event (generation, {columns})"  # noqa: S608  # constants
                    f" SELECT 1, {row} FROM secret_event WHERE position = {EARLY}"
                )
            error = await interfered(url, 0, another_begins)
            assert isinstance(error, TamperedEvent), (place, version, error)
            assert (await in_use(url))[0] == 0
            await no_wrong_value(url, truth)
            await works(url, truth)


async def migrated(url: str) -> None:
    async with migrator(url) as ledger:
        await ledger.migrate()
        await ledger.put("often", "value 3")


@pytest.mark.parametrize("new_state", ["building", "closed", "purged"])
@pytest.mark.parametrize("closing", ["kept", "deleted", "deleted with the head row's position"])
async def test_an_old_head_row_put_back_after_the_flip_is_refused_or_seen_by_who_runs(
    fresh: Callable[[], str], new_state: str, closing: str
) -> None:
    url = fresh()
    await migrated(url)
    async with opened(url, NEW, OLD, node="runs") as running, attacking(url) as attacker:
        await running.get("often")
        await attacker.sql(f"UPDATE ledger_head SET state = '{new_state}' WHERE generation = 1")  # noqa: S608  # constants
        if closing != "kept":
            await attacker.sql(
                "DELETE FROM secret_event WHERE generation = 0 AND event_type = 'generation.closed'"
            )
        if closing.endswith("position"):
            await attacker.sql(
                "UPDATE ledger_head SET position = position - 1, recorded_at ="
                " (SELECT max(recorded_at) FROM secret_event WHERE generation = 0)"
                " WHERE generation = 0"
            )
        await attacker.sql("UPDATE ledger_head SET state = 'active' WHERE generation = 0")
        with pytest.raises(TamperedEvent):
            await running.get("often")
        with pytest.raises(TamperedEvent):
            await running.put("often", "value 4")
    if closing.endswith("position"):
        return  # the newest of it cut off with the head row: that needs an anchor outside
    with pytest.raises(TamperedEvent):
        async with opened(url, NEW, OLD, create=False, verify="control"):
            pass


async def test_a_generation_whose_closing_was_taken_out_is_found(
    fresh: Callable[[], str],
) -> None:
    url = fresh()
    await migrated(url)
    async with attacking(url) as attacker:
        await attacker.sql(
            "DELETE FROM secret_event WHERE generation = 0 AND event_type = 'generation.closed'"
        )
    async with opened(url, NEW, OLD, create=False) as ledger:
        findings = (await ledger.verify("full")).findings
        assert {finding.generation for finding in findings} == {0}
        assert any("closed" in finding.reason for finding in findings)


async def test_rows_planted_in_a_purged_generation_are_found_and_read_by_nobody(
    fresh: Callable[[], str], truth: Truth
) -> None:
    url = fresh()
    async with migrator(url) as ledger, attacking(url) as attacker:
        kept = await attacker.sql("SELECT * FROM secret_event WHERE position = $1", EARLY)
        await ledger.migrate()
        await ledger.purge_generation(0)
        await attacker.insert_rows("secret_event", kept)
        for (name, version), end in truth.versions.items():
            assert await ending(ledger, name, version) == end
        (finding,) = (await ledger.verify("full")).findings
        assert finding.generation == 0
        assert "purged" in finding.reason
