"""What a SQLite URL may say: nothing in it is passed over, or means another file than it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from cli_session import Cli
from ledgers import OLD, file_of, opened, refused
from secret_ledger import LedgerUnavailable, open_unverified

SAYS_MORE = {
    "a file where a host belongs": ("sqlite+aiosqlite://app.db", "host"),
    "a folder where a host belongs": ("sqlite+aiosqlite://data/app.db", "host"),
    "a host": ("sqlite+aiosqlite://localhost/app.db", "host"),
    "a user": ("sqlite+aiosqlite://hunter2@/app.db", "host"),
    "a password": ("sqlite+aiosqlite://u:hunter2@/app.db", "host"),
    "a port": ("sqlite+aiosqlite://localhost:1/app.db", "host"),
    "a mode": ("sqlite+aiosqlite:///app.db?mode=ro", "parameters"),
    "a blank mode": ("sqlite+aiosqlite:///app.db?mode=", "parameters"),
    "a time": ("sqlite+aiosqlite:///app.db?timeout=3", "parameters"),
    "a password among the parameters": ("sqlite+aiosqlite:///app.db?password=hunter2", "host"),
    "an escape": ("sqlite+aiosqlite:///an%20app.db", "%"),
    "an escaped NUL": ("sqlite+aiosqlite:///app.db%00", "%"),
    "a NUL": ("sqlite+aiosqlite:///app.db\0", "control character"),
    "a line break": ("sqlite+aiosqlite:///app.db\nx", "control character"),
    "no path": ("sqlite+aiosqlite:///", "names no file"),
    "a blank path": ("sqlite+aiosqlite:///  ", "names no file"),
    "another URL": ("sqlite+aiosqlite:///file:app.db?mode=ro&uri=true", "parameters"),
    "another URL without parameters": ("sqlite+aiosqlite:///file:app.db", "another URL"),
    "an encrypting driver": ("sqlite+pysqlcipher:///app.db", "driver"),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("url", "why"), SAYS_MORE.values(), ids=SAYS_MORE)
async def test_a_url_that_says_more_than_a_path_is_refused_and_nothing_is_made(
    tmp_path: Path, url: str, why: str
) -> None:
    """SQLAlchemy passes over a host and takes the rest for a path, or for a database in memory."""
    for read_only in (False, True):
        error = await refused(url, LedgerUnavailable, OLD, read_only=read_only)
        assert why in error.message
        assert "hunter2" not in f"{error.message} {error.hint}"
    with pytest.raises(LedgerUnavailable, match=why):
        async with open_unverified(url):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("url", "why"), SAYS_MORE.values(), ids=SAYS_MORE)
async def test_a_target_that_says_more_than_a_path_gets_no_ledger(
    tmp_path: Path, url: str, why: str
) -> None:
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/source.db", OLD) as ledger:
        await ledger.put("a", "1")
        with pytest.raises(LedgerUnavailable, match=why):
            await ledger.migrate(url)
        assert (await ledger.put("a", "2")).version == 2


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite", "sqlite+aiosqlite"])
async def test_a_path_is_relative_after_three_slashes_and_full_after_four(
    tmp_path: Path, scheme: str
) -> None:
    (tmp_path / "data").mkdir()
    async with opened(f"{scheme}:///data/app.db", OLD) as ledger:
        await ledger.put("a", "1")
    async with opened(f"{scheme}:///{tmp_path}/data/app.db", OLD, create=False) as ledger:
        assert (await ledger.get("a")).version == 1


async def test_a_parsed_url_may_have_any_character_in_its_path(tmp_path: Path) -> None:
    """Nothing in it is an escape any more: it names the file that it shows."""
    url = make_url("sqlite+aiosqlite://").set(database="100%20.db")
    async with opened(url, OLD) as ledger:  # type: ignore[arg-type]
        await ledger.put("a", "1")
    assert (tmp_path / "100%20.db").exists()


async def test_an_engine_may_be_set_up_for_its_own_connections_but_not_for_another_file(
    sqlite_url: str,
) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
    engine = create_async_engine(f"{sqlite_url}?timeout=3")
    async with opened(engine, OLD, create=False) as ledger:  # type: ignore[arg-type]
        assert (await ledger.get("a")).version == 1
    await engine.dispose()
    engine = create_async_engine(f"sqlite+aiosqlite:///file:{file_of(sqlite_url)}?mode=ro&uri=true")
    with pytest.raises(LedgerUnavailable, match="parameters"):
        async with opened(engine, OLD):  # type: ignore[arg-type]
            pass
    await engine.dispose()


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:"])
@pytest.mark.parametrize(
    "words", [("init",), ("put", "a"), ("get", "a"), ("list",), ("health",), ("schema", "upgrade")]
)
def test_the_command_line_makes_no_ledger_in_memory(
    monkeypatch: pytest.MonkeyPatch, url: str, words: tuple[str, ...]
) -> None:
    """It would be gone when the command ends: a `put` that exits 0 would have stored nothing."""
    cli = Cli(monkeypatch, url)
    done = cli(*words, value=b"1")
    assert done.code == 2
    assert "in memory" in done.err


@pytest.mark.parametrize("words", [("init",), ("put", "a"), ("list",)])
def test_the_command_line_refuses_a_file_in_a_hosts_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    cli = Cli(monkeypatch, "sqlite+aiosqlite://app.db")
    done = cli(*words, value=b"1")
    assert done.code == 40
    assert "sqlite+aiosqlite:///app.db" in done.err
    assert list(tmp_path.iterdir()) == []
