"""A table that only has not been folded yet is no damage: of a new ledger, say."""

from __future__ import annotations

import asyncio

import pytest

from checkpoints import spelt
from cli_session import KEY, NEW_KEY, Cli
from ledgers import NEW, OLD, opened, refused
from log_builder import building
from moves import Route
from secret_ledger import Keyring, TamperedEvent, upgrade_schema
from secret_ledger_projections import SysSecret, check, lag


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Cli:
    return Cli(monkeypatch, database_url)


def in_order(cli: Cli) -> None:
    """Everything that the command line has for it says that nothing is wrong."""
    for words in (["verify", "--level", "full"], ["projections", "check"], ["health"]):
        done = cli(*words)
        assert (done.code, done.remarks("error")) == (0, [])
    assert dict(row[:2] for row in cli("health").rows)["projection_lag"] == "0"


def test_a_ledger_that_was_just_made_is_in_order(cli: Cli) -> None:
    assert cli("init").code == 0
    in_order(cli)


def test_a_ledger_is_in_order_after_each_step_that_writes_no_secret(cli: Cli) -> None:
    assert cli("init").code == 0
    cli.hold(NEW_KEY, KEY)
    for step in (["keys", "rotate"], ["migrate"], ["generations", "purge", "0", "--yes"]):
        assert cli(*step).code == 0
        in_order(cli)


def test_the_target_of_a_move_is_in_order_before_anybody_writes_there(
    monkeypatch: pytest.MonkeyPatch, route: Route
) -> None:
    cli = Cli(monkeypatch, route.source)
    assert cli("init").code == 0
    assert cli("migrate", "--to", route.target).code == 0
    in_order(Cli(monkeypatch, route.target))


async def test_a_first_boot_that_was_killed_before_it_folded_leaves_nothing_tampered(
    database_url: str,
) -> None:
    async with (
        building(database_url, OLD),
        opened(database_url, OLD, read_only=True, verify="full") as ledger,
    ):
        report = await ledger.verify("full")
        assert (report.ok, report.warnings) == (True, ())
        assert [one async for one in check(ledger.database, SysSecret())] == []


async def test_a_rotation_by_a_process_without_the_projection_leaves_nothing_tampered(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
    async with opened(database_url, NEW, OLD, projections=()) as ledger:
        await ledger.rotate()
    async with opened(database_url, NEW, OLD, read_only=True) as ledger:
        report = await ledger.verify("full")
        assert (report.ok, report.warnings) == (True, ())
        assert [one async for one in check(ledger.database, SysSecret())] == []


async def test_a_schema_upgrade_folds_what_was_written_before(database_url: str) -> None:
    async with building(database_url, OLD, upto=2) as log:
        await log.put("a", b"1")
    await upgrade_schema(database_url, Keyring.of(OLD))
    async with opened(database_url, OLD, read_only=True) as ledger:
        report = await ledger.verify("full")
        assert (report.ok, report.warnings) == (True, ())
        assert await lag(ledger.database, SysSecret()) == 0


async def test_a_table_that_is_behind_is_a_warning_and_no_finding(database_url: str) -> None:
    async with opened(database_url, OLD, projections=()) as ledger:
        await ledger.put("a", "1")
        await ledger.put("b", "1")
    async with opened(database_url, OLD, read_only=True, verify="full") as ledger:
        report = await ledger.verify("full")
        assert report.ok
        (warning,) = report.warnings
        assert warning == (
            f"sys_secret is {ledger.position} positions behind the log: the next node that opens"
            " the ledger to write folds them"
        )
        (behind,) = [one async for one in check(ledger.database, SysSecret())]
        assert str(behind).endswith("positions behind the log")


async def test_a_row_that_is_wrong_is_found_also_where_the_table_is_said_to_be_behind(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log:
        async with opened(database_url, OLD) as ledger:
            await ledger.put("a", "1")
            await ledger.put("b", "1")
        await log.execute("UPDATE {s}secret_current SET state = 'deleted' WHERE name = 'a'")
        back = "UPDATE {checkpoints} SET {checkpoint} = {checkpoint} - 1"
        await log.execute(spelt(log.database, back))
    error = await refused(database_url, TamperedEvent, OLD, verify="full", read_only=True)
    assert "sys_secret: a: state is 'deleted', not 'live'" in error.message
    async with opened(database_url, OLD, read_only=True) as ledger:
        reasons = [finding.reason for finding in (await ledger.verify("full")).findings]
        assert "sys_secret: a: state is 'deleted', not 'live'" in reasons


def test_the_command_line_says_that_a_table_is_behind(cli: Cli) -> None:
    assert cli("init").code == 0

    async def write() -> None:
        async with opened(cli.url, KEY, projections=()) as ledger:
            await ledger.put("a", "1")

    asyncio.run(write())
    done = cli("verify", "--level", "full")
    assert done.code == 0
    assert done.remarks("warning: sys_secret is 1 positions behind the log")
    assert cli("verify", "--level", "full", "--json").json["warnings"]
