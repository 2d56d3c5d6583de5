"""The file of a SQLite ledger: moved, exchanged, copied in part, or damaged."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commits import before_commit
from ledgers import OLD, file_of, opened, refused
from secret_ledger import LedgerUnavailable, TamperedEvent


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """The working directory is the old one again afterwards."""
    before = Path.cwd()
    yield
    os.chdir(before)


async def test_a_relative_path_stays_the_file_that_was_opened_whatever_the_working_directory(
    tmp_path: Path, elsewhere: None
) -> None:
    """A daemon changes it after it began; another ledger of that name may lie there."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    os.chdir(here)
    url = "sqlite+aiosqlite:///relative.db"
    async with opened(url, OLD) as ledger:
        await ledger.put("a", "an older value")
    shutil.copy("relative.db", there)
    async with opened(url, OLD) as ledger:
        await ledger.put("a", "the newest value")
        os.chdir(there)
        reads = await asyncio.gather(*(ledger.get("a") for _ in range(20)))
        assert {got.value.reveal_text() for got in reads} == {"the newest value"}
        assert (await ledger.put("a", "one more")).version == 3
    os.chdir(here)
    async with opened(url, OLD) as ledger:
        assert (await ledger.get("a")).version == 3


def _removed(file: Path) -> None:
    file.unlink()


def _moved_away(file: Path) -> None:
    file.rename(file.with_suffix(".old"))


def _exchanged(file: Path) -> None:
    """How a backup is put back while somebody has the file open."""
    shutil.copy(file, file.with_suffix(".copy"))
    file.with_suffix(".copy").rename(file)


def _folder_moved(file: Path) -> None:
    file.parent.rename(file.parent.with_name("moved"))


@pytest.mark.parametrize("change", [_removed, _moved_away, _exchanged, _folder_moved])
async def test_a_file_that_is_not_in_its_place_any_more_takes_no_write_and_gives_no_value(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """SQLite itself would go on with the file that it has open, which nobody finds again."""
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "ledger.db"
    async with opened(f"sqlite+aiosqlite:///{file}", OLD) as ledger:
        await ledger.put("a", "1")
        change(file)
        for work in (ledger.put("a", "2"), ledger.get("a"), ledger.verify("latest")):
            with pytest.raises(LedgerUnavailable, match="not the file that was opened"):
                await work
        health = await ledger.health()
        assert health.state == "unready"
        assert "not the file that was opened" in health.reasons[0]


@pytest.mark.parametrize("name", ["real.db", "link.db"])
async def test_a_write_into_a_removed_wal_is_not_acknowledged(tmp_path: Path, name: str) -> None:
    """What is in it is lost to everybody else, and to this process if it is killed."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "real.db").touch()
    (tmp_path / "folder" / "link.db").symlink_to("real.db")
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/folder/{name}", OLD) as ledger:
        await ledger.put("a", "1")
        (tmp_path / "folder" / "real.db-wal").unlink()
        with pytest.raises(LedgerUnavailable, match="-wal"):
            await ledger.put("a", "2")


async def test_a_wal_that_is_removed_during_a_write_leaves_its_outcome_unknown(
    sqlite_url: str,
) -> None:
    wal = Path(file_of(sqlite_url) + "-wal")
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")

        def remove_and_write(connection: object) -> None:
            wal.unlink()

        with pytest.raises(LedgerUnavailable, match="-wal") as caught:
            await ledger.database.run(remove_and_write, "write")
        assert caught.value.outcome_unknown


@pytest.mark.parametrize("end", ["-wal", ""])
async def test_a_file_that_is_moved_at_the_commit_of_a_put_leaves_its_outcome_unknown(
    sqlite_url: str, end: str
) -> None:
    """Also where the second try is refused with an error that says nothing of the first one."""
    file = Path(file_of(sqlite_url) + end)
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
        with (
            before_commit(1, lambda: file.rename(file.with_suffix(".moved"))),
            pytest.raises(LedgerUnavailable, match="not the file that was opened") as caught,
        ):
            await ledger.put("a", "2")
        assert caught.value.outcome_unknown
        assert "stop every process" in caught.value.hint


async def test_a_file_behind_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.db").touch()
    link = tmp_path / "link.db"
    link.symlink_to("real.db")
    async with opened(f"sqlite+aiosqlite:///{link}", OLD) as ledger:
        await ledger.put("a", "1")
        (tmp_path / "other.db").touch()
        link.unlink()
        link.symlink_to("other.db")
        with pytest.raises(LedgerUnavailable, match="not the file that was opened"):
            await ledger.put("a", "2")


async def test_a_new_ledger_is_whole_in_its_file_without_its_wal(
    sqlite_url: str, tmp_path: Path
) -> None:
    """So a copy that leaves the -wal out is an older state of it, never an empty place in
    which a second ledger would be made."""
    async with opened(sqlite_url, OLD, projections=()) as ledger:
        await ledger.put("a", "1")
        shutil.copy(file_of(sqlite_url), tmp_path / "copy.db")
        async with opened(f"sqlite+aiosqlite:///{tmp_path}/copy.db", OLD) as copy:
            assert not copy.created
            assert copy.ledger_id == ledger.ledger_id


async def test_damaged_text_of_the_schema_is_damage(sqlite_url: str) -> None:
    """SQLite puts it into its messages, which Python then can't decode."""
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
    file = Path(file_of(sqlite_url))
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"CREATE UNIQUE INDEX ledger_head_one", b"CREATE \xe0N\xff", 1))
    assert len(file.read_bytes()) != len(whole)
    file.write_bytes(
        whole.replace(
            b"CREATE UNIQUE INDEX ledger_head_one", b"CR\xe0ATE UNIQUE \xffNDEX ledger_head_one", 1
        )
    )
    await refused(sqlite_url, TamperedEvent, OLD)
    await refused(sqlite_url, TamperedEvent, OLD, read_only=True)
