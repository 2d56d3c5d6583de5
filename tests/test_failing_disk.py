"""A SQLite ledger on a disk that fails, or is full."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cli_process import ROOT
from cli_session import Cli
from ledgers import OLD, file_of, opened
from rights import without_rights
from secret_ledger import LedgerUnavailable, SecretLedger
from waiting import until

FAILING_DISK = """
import asyncio, json, os, sys
from failing_syncs import fail_syncs
from ledgers import OLD, opened
from secret_ledger import LedgerUnavailable

async def main(url):
    async with opened(url, OLD) as ledger:
        await ledger.put("a", "1")
        # The units of a `note` run on the thread that writes.
        await ledger.database.run(lambda connection: fail_syncs(), "note")
        try:
            await ledger.put("a", "2")
        except LedgerUnavailable as error:
            told = {"unknown": error.outcome_unknown, "message": error.message, "hint": error.hint}
        print(json.dumps(told), flush=True)
        os._exit(0)  # as killed

asyncio.run(main(*sys.argv[1:]))
"""


async def _told(script: str, *words: str) -> Any:
    """What a process of its own says of itself, as JSON."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *words,
        cwd=ROOT / "tests",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert out, err.decode()
    return json.loads(out)


async def test_a_commit_that_the_disk_fails_leaves_the_outcome_unknown(sqlite_url: str) -> None:
    """The commit's mark is in the -wal by then, and the next start finds it there."""
    told = await _told(FAILING_DISK, sqlite_url)
    assert told["unknown"]
    assert "SQLITE_IOERR_FSYNC" in told["message"]
    assert "read the secret before you write it again" in told["hint"]
    async with opened(sqlite_url, OLD) as ledger:
        assert (await ledger.get("a")).value.reveal_text() == "2"  # and so it was, this time


FULL = """
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON secret_ledger.secret_event
    FOR EACH ROW EXECUTE FUNCTION full_disk()
"""


async def _pages(ledger: SecretLedger, most: int) -> None:
    # The setting is the connection's; the units of a `note` have the one that writes.
    await ledger.database.run(
        lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {most}"), "note"
    )


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def _fill(ledger: SecretLedger, url: str) -> None:
    if ledger.database.name == "sqlite":
        await _pages(ledger, 1)
    else:
        await _execute(url, FULL)


async def _free(ledger: SecretLedger, url: str) -> None:
    if ledger.database.name == "sqlite":
        await _pages(ledger, 1_000_000)
    else:
        await _execute(url, "DROP TRIGGER full_disk ON secret_ledger.secret_event")


async def test_a_node_whose_writes_fail_on_a_full_disk_is_not_ready_until_one_succeeds(
    database_url: str,
) -> None:
    async with (
        opened(database_url, OLD) as ledger,
        opened(database_url, OLD, read_only=True) as reader,
    ):
        await ledger.put("a", "1")
        assert (await ledger.health()).ready
        await _fill(ledger, database_url)
        with pytest.raises(LedgerUnavailable, match="disk is full"):
            await ledger.put("b", b"x" * 100_000)
        health = await ledger.health()
        assert not health.ready
        assert "the disk is full" in health.reasons[0]
        assert (await ledger.get("a")).version == 1
        assert (await reader.health()).ready
        await _free(ledger, database_url)
        assert (await ledger.put("b", b"x" * 100_000)).version == 1
        assert (await ledger.health()).ready


async def test_a_node_that_gets_no_writes_learns_by_its_heartbeats_that_none_would_succeed(
    sqlite_url: str,
) -> None:
    async with opened(sqlite_url, OLD, heartbeat=0.01) as ledger:

        async def is_ready() -> bool:
            return (await ledger.health()).ready

        async def is_unready() -> bool:
            return not await is_ready()

        # The connection that writes, of which a `note` is given no other.
        raw = await ledger.database.run(_raw, "note")
        for setting, condition in (("ON", is_unready), ("OFF", is_ready)):
            raw.execute(f"PRAGMA query_only = {setting}")
            await until(condition)


def _raw(connection: Any) -> sqlite3.Connection:
    raw: sqlite3.Connection = connection.raw
    return raw


@pytest.fixture
def _a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs

    def full(path: Any) -> Any:
        found = list(real(path))
        found[4] = 3  # blocks for those without rights over the reserve
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", full)


@pytest.mark.usefixtures("_a_full_disk")
async def test_a_disk_without_room_is_noticed_before_a_write_fails(sqlite_url: str) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        health = await ledger.health()
        assert not health.ready
        assert "the disk is full" in health.reasons[0]
        assert list(health.unwritable) == list(health.reasons)
    async with opened(sqlite_url, OLD, read_only=True) as reader:
        health = await reader.health()
        assert health.ready
        assert "the disk is full" in health.unwritable[0]


@pytest.mark.usefixtures("_a_full_disk")
def test_health_of_the_command_line_is_that_of_a_service_which_would_write(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    cli = Cli(monkeypatch, sqlite_url)
    assert cli("init").code == 0
    seen = cli("health", "--json")
    assert seen.code == 41
    assert not seen.json["ready"]
    assert "the disk is full" in seen.json["reasons"][0]


async def test_a_file_that_cannot_be_written_any_more_makes_the_node_unready(
    sqlite_url: str,
) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")

    async def work() -> None:
        async with opened(sqlite_url, OLD) as ledger:
            file = Path(file_of(sqlite_url))
            file.chmod(0o400)
            health = await ledger.health()
            assert not health.ready
            assert "can't be written" in health.reasons[0]
            file.chmod(0o600)
            assert (await ledger.health()).ready

    await without_rights(work)
