"""A SQLite file that is overwritten in its place while it is in use: `cp backup.db app.db`."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from commits import before_commit
from ledgers import NEW, OLD, file_of, opened
from secret_ledger import LedgerUnavailable, SecretLedger

OVERWRITTEN = "was overwritten while it was in use"


def back_up(url: str) -> Path:
    """As `sqlite3 app.db '.backup backup.db'` does."""
    file = Path(file_of(url))
    backup = file.with_name("backup.db")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    return backup


def checkpoint(url: str) -> None:
    with closing(sqlite3.connect(file_of(url))) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def copy_over(backup: Path, url: str) -> bytes:
    """As `cp` does: the file stays the same one, and is cut off first."""
    shutil.copyfile(backup, file_of(url))
    return backup.read_bytes()


async def fill(ledger: SecretLedger, url: str) -> Path:
    """Some versions, a backup of the first of them, and a checkpoint after the last."""
    await ledger.put("a", "1")
    backup = back_up(url)
    await ledger.put("a", "2")
    checkpoint(url)
    return backup


async def test_nothing_is_acknowledged_or_answered_once_a_backup_was_copied_over_the_file(
    sqlite_url: str,
) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        backup = await fill(ledger, sqlite_url)
        await ledger.put("a", "3")
        copy = copy_over(backup, sqlite_url)
        for work in (ledger.put("a", "4"), ledger.get("a"), ledger.verify("latest")):
            with pytest.raises(LedgerUnavailable, match=OVERWRITTEN) as caught:
                await work
            assert "restore-sqlite.md" in caught.value.hint
        health = await ledger.health()
        assert health.state == "unready"
        assert OVERWRITTEN in health.reasons[0]
    # And closing it put nothing of the -wal into the copy.
    assert Path(file_of(sqlite_url)).read_bytes() == copy


async def test_a_copy_in_the_midst_of_a_write_leaves_its_outcome_unknown(sqlite_url: str) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        backup = await fill(ledger, sqlite_url)
        with (
            before_commit(1, lambda: copy_over(backup, sqlite_url)),
            pytest.raises(LedgerUnavailable, match=OVERWRITTEN) as caught,
        ):
            await ledger.put("a", "3")
        assert caught.value.outcome_unknown


async def test_a_copy_is_noticed_at_closing_too(sqlite_url: str) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        backup = await fill(ledger, sqlite_url)
        await ledger.put("a", "3")
        copy = copy_over(backup, sqlite_url)
    assert Path(file_of(sqlite_url)).read_bytes() == copy


async def test_every_process_that_has_it_open_notices_a_copy(sqlite_url: str) -> None:
    async with (
        opened(sqlite_url, OLD) as one,
        opened(sqlite_url, OLD) as two,
        opened(sqlite_url, OLD, read_only=True) as reader,
        opened(sqlite_url, OLD, max_staleness=0) as viewer,
    ):
        backup = await fill(one, sqlite_url)
        assert (await viewer.get("a")).version == 2
        copy = copy_over(backup, sqlite_url)
        for ledger in (two, reader, viewer, one):
            with pytest.raises(LedgerUnavailable, match=OVERWRITTEN):
                await ledger.get("a")
    assert Path(file_of(sqlite_url)).read_bytes() == copy


async def test_another_ledger_in_its_place_is_noticed_and_a_copy_that_went_on_by_itself(
    sqlite_url: str, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/other.db"
    async with opened(url, OLD) as other:
        for n in range(20):
            await other.put("a", f"{n}")
    async with opened(sqlite_url, OLD) as ledger:
        await fill(ledger, sqlite_url)
        copy_over(Path(file_of(url)), sqlite_url)
        with pytest.raises(LedgerUnavailable, match=OVERWRITTEN):
            await ledger.put("a", "3")
    # A copy of the same ledger that went on by itself, and further than this one.
    for end in ("", "-wal", "-shm"):
        Path(file_of(sqlite_url) + end).unlink(missing_ok=True)
    async with opened(sqlite_url, OLD) as ledger:
        backup = await fill(ledger, sqlite_url)
        async with opened(f"sqlite+aiosqlite:///{backup}", OLD) as fork:
            for n in range(20):
                await fork.put("a", f"another {n}")
        await ledger.put("a", "3")
        copy_over(backup, sqlite_url)
        with pytest.raises(LedgerUnavailable, match=OVERWRITTEN):
            await ledger.put("a", "4")


@pytest.mark.parametrize("end", [b"", b"no database at all" * 300])
async def test_a_file_that_is_emptied_or_filled_with_something_else_takes_no_write(
    sqlite_url: str, end: bytes
) -> None:
    async with opened(sqlite_url, OLD, patience=0.1) as ledger:
        await fill(ledger, sqlite_url)
        Path(file_of(sqlite_url)).write_bytes(end)
        with pytest.raises(LedgerUnavailable):
            await ledger.put("a", "3")
    assert Path(file_of(sqlite_url)).read_bytes() == end


async def test_a_checkpoint_that_was_killed_stops_nobody(sqlite_url: str) -> None:
    """It writes the first page first, which speaks of pages that the file does not have yet."""
    file = Path(file_of(sqlite_url))
    async with opened(sqlite_url, OLD) as one, opened(sqlite_url, OLD) as two:
        await one.put_many({f"s/{n}": "x" * 2000 for n in range(60)})
        whole = file.with_name("whole.db")
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{file}{suffix}", f"{whole}{suffix}")
        with closing(sqlite3.connect(whole)) as raw:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert file.stat().st_size < whole.stat().st_size
        with subprocess.Popen(  # a process of its own: to close the file drops no lock of ours
            [sys.executable, "-c", KILLED, str(file), str(whole)]
        ) as killed:
            assert killed.wait() == 0
        async with opened(sqlite_url, OLD, read_only=True) as reading:
            assert (await reading.get("s/3")).version == 1
        for ledger in (one, two):
            await ledger.put("a", "1")
            assert (await ledger.get("s/3")).version == 1
        async with opened(sqlite_url, OLD, verify="full") as third:
            assert (await third.put("a", "2")).version == 3


async def test_a_copy_under_way_is_no_killed_checkpoint(sqlite_url: str) -> None:
    """The first pages of a backup: a database that speaks of pages which are not there yet."""
    file = Path(file_of(sqlite_url))
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put_many({f"s/{n}": "x" * 2000 for n in range(60)})
        checkpoint(sqlite_url)
        backup = back_up(sqlite_url)
        await ledger.put("a", "1")
        file.write_bytes(backup.read_bytes()[: 10 * 4096])
        with pytest.raises(LedgerUnavailable, match="a program other than SQLite"):
            await ledger.get("s/3")
        assert file.stat().st_size == 10 * 4096
        copy_over(backup, sqlite_url)
        with pytest.raises(LedgerUnavailable, match=OVERWRITTEN):
            await ledger.put("a", "2")


KILLED = """
import sys
with open(sys.argv[2], "rb") as whole, open(sys.argv[1], "r+b") as file:
    file.write(whole.read(4096))
"""


def _vacuum(raw: sqlite3.Connection) -> None:
    raw.execute("VACUUM")


def _table(raw: sqlite3.Connection) -> None:
    raw.execute("CREATE TABLE own (n)")
    raw.execute("DROP TABLE own")


def _checkpoints(raw: sqlite3.Connection) -> None:
    for mode in ("PASSIVE", "RESTART", "TRUNCATE"):
        raw.execute(f"PRAGMA wal_checkpoint({mode})")


@pytest.mark.parametrize("act", [_vacuum, _table, _checkpoints])
async def test_what_sqlite_itself_writes_into_the_file_is_no_copy(
    sqlite_url: str, act: Callable[[sqlite3.Connection], None]
) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        for n in range(1, 6):
            assert (await ledger.put("a", f"{n}")).version == n
            with closing(sqlite3.connect(file_of(sqlite_url), isolation_level=None)) as raw:
                act(raw)
                checkpoint(sqlite_url)
            assert (await ledger.get("a")).version == n
        Path(file_of(sqlite_url)).touch()
        assert (await ledger.health()).state == "ready"


async def test_checkpoints_of_a_long_life_are_no_copies(sqlite_url: str) -> None:
    """Rotations, migrations and purges too, and several that write."""
    async with opened(sqlite_url, OLD) as one, opened(sqlite_url, OLD, NEW) as two:
        for n in range(1, 8):
            for ledger in (one, two):
                await ledger.put_many({f"{n}/{i}": b"x" * 20_000 for i in range(40)})
        await one.rotate(NEW)
        await one.migrate()
        await one.purge_generation(0)
        assert (await two.get("7/39")).version == 2
        assert (await two.verify("full")).ok
