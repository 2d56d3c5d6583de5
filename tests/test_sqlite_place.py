"""Where a SQLite ledger lies: the error says what is in the way there."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cli_session import KEY, Cli
from inside import wal_reset_race
from ledgers import OLD, file_of, opened, refused
from rights import without_rights
from secret_ledger import LedgerUnavailable, open_unverified


@pytest.fixture
async def place(sqlite_url: str) -> Path:
    """The file of a ledger that is closed."""
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
    return Path(file_of(sqlite_url))


@pytest.fixture(autouse=True)
def _modes(tmp_path: Path) -> Iterator[None]:
    """The folder can be removed afterwards."""
    yield
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_folder_in_the_files_place_is_said_to_be_one(
    tmp_path: Path, read_only: bool
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}"
    error = await refused(url, LedgerUnavailable, OLD, read_only=read_only)
    assert "is a folder, not a file" in error.message
    assert f"{tmp_path}/ledger.db" in error.hint
    with pytest.raises(LedgerUnavailable, match="is a folder"):
        async with open_unverified(url):
            pass


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/nowhere/app.db"
    error = await refused(url, LedgerUnavailable, OLD)
    assert f"the folder {tmp_path}/nowhere does not exist" in error.message


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_folder_that_cannot_be_written_is_the_reason_and_so_is_what_is_written_there(
    sqlite_url: str, place: Path, read_only: bool
) -> None:
    """SQLite says that the database is read-only, also where it is only to be read."""
    place.parent.chmod(0o500)

    async def work() -> LedgerUnavailable:
        return await refused(sqlite_url, LedgerUnavailable, OLD, read_only=read_only)

    error = await without_rights(work)
    assert f"the folder {place.parent} can't be written" in error.message
    assert f"{place.name}-shm" in error.message
    assert "also where the ledger is only read" in error.hint


async def test_a_file_that_cannot_be_written_is_the_reason(sqlite_url: str, place: Path) -> None:
    place.chmod(0o400)

    async def work() -> LedgerUnavailable:
        async with opened(sqlite_url, OLD, read_only=True) as ledger:
            assert (await ledger.get("a")).version == 1
        return await refused(sqlite_url, LedgerUnavailable, OLD)

    assert "the file may not be written" in (await without_rights(work)).message


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_file_that_cannot_be_read_is_the_reason(
    sqlite_url: str, place: Path, read_only: bool
) -> None:
    place.chmod(0o000)

    async def work() -> LedgerUnavailable:
        return await refused(sqlite_url, LedgerUnavailable, OLD, read_only=read_only)

    assert "the file may not be read" in (await without_rights(work)).message


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_folder_that_cannot_be_searched_ends_in_a_typed_error(
    sqlite_url: str, place: Path, read_only: bool
) -> None:
    """Whether a file is in it nobody can tell: it is no place to make a ledger in."""
    place.parent.chmod(0o600)

    async def work() -> LedgerUnavailable:
        return await refused(sqlite_url, LedgerUnavailable, OLD, read_only=read_only)

    error = await without_rights(work)
    assert "can't be looked at" in error.message
    assert "search" in error.hint


async def test_a_path_that_no_file_can_have_ends_in_a_typed_error(tmp_path: Path) -> None:
    error = await refused(f"sqlite+aiosqlite:///{tmp_path}/{'x' * 300}", LedgerUnavailable, OLD)
    assert "can't be looked at" in error.message


async def test_a_transaction_of_this_process_is_among_what_a_write_may_wait_for(
    sqlite_url: str,
) -> None:
    """It waited ten seconds, and blamed another process."""
    async with opened(sqlite_url, OLD, patience=0.05) as ledger:
        with closing(sqlite3.connect(file_of(sqlite_url), isolation_level=None)) as own:
            own.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerUnavailable, match="another transaction holds") as caught:
                await ledger.put("a", "1")
            assert "this process" in caught.value.hint
            assert "a write to the ledger waits for it" in caught.value.hint
            own.execute("ROLLBACK")
        assert (await ledger.put("a", "1")).version == 1


RACE = "WAL-reset race"


@pytest.fixture
def _a_release_with_the_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 46, 1))


@pytest.mark.usefixtures("_a_release_with_the_race")
async def test_the_wal_reset_race_is_said_where_several_processes_can_write(
    sqlite_url: str,
) -> None:
    async with opened(sqlite_url, OLD) as one:
        assert not [w for w in one.warnings if RACE in w]
        assert not [w for w in (await one.health()).warnings if RACE in w]
        async with opened(sqlite_url, OLD, read_only=True) as reader:
            assert not [w for w in reader.warnings if RACE in w]
            assert not [w for w in (await reader.health()).warnings if RACE in w]
        async with opened(sqlite_url, OLD) as two:
            assert [w for w in two.warnings if RACE in w]
            for ledger in (one, two):
                assert len([w for w in (await ledger.health()).warnings if RACE in w]) == 1
        assert not [w for w in (await one.health()).warnings if RACE in w]


@pytest.mark.usefixtures("_a_release_with_the_race")
async def test_a_ledger_in_memory_has_no_race() -> None:
    async with opened("sqlite+aiosqlite://", OLD) as ledger:
        assert not ledger.warnings
        assert not (await ledger.health()).warnings


@pytest.mark.usefixtures("_a_release_with_the_race")
def test_the_command_line_says_the_race_at_init_and_in_health_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    """With every verb it would bury the warnings that are about the ledger."""
    cli = Cli(monkeypatch, sqlite_url)
    assert RACE in cli("init").err

    async def beside_two_services() -> None:
        async with opened(sqlite_url, KEY), opened(sqlite_url, KEY):
            for words in (("put", "a"), ("get", "a"), ("list",), ("keys", "status"), ("verify",)):
                done = await asyncio.to_thread(cli, *words, value=b"1")
                assert done.code == 0
                assert RACE not in done.err + done.out
            seen = await asyncio.to_thread(cli, "health", "--json")
            assert [w for w in seen.json["warnings"] if RACE in w]

    asyncio.run(beside_two_services())
    assert not cli("health", "--json").json["warnings"]


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False), ((3, 7, 0), True), ((3, 44, 5), True), ((3, 44, 6), False),
        ((3, 45, 0), True), ((3, 50, 6), True), ((3, 50, 7), False), ((3, 51, 0), True),
        ((3, 51, 2), True), ((3, 51, 3), False), ((3, 52, 0), False),
    ],
)  # fmt: skip
def test_the_releases_with_the_race_are_known(version: tuple[int, ...], affected: bool) -> None:
    assert (wal_reset_race(version) is not None) == affected
