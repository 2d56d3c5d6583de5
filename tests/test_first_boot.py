"""Where a ledger is made, where none is, and that nobody else's data is touched."""

from __future__ import annotations

import asyncio
import sqlite3
from hashlib import sha256
from pathlib import Path

import pytest

from inside import Keyring, connect
from ledgers import NEW, OLD, file_of, has_tables, opened, refused, rows
from secret_ledger import (
    KeyFingerprintMismatch,
    LedgerUnavailable,
    NotALedger,
    SecretLedger,
    WrongLedger,
    init_ledger,
)


async def test_an_empty_database_becomes_a_whole_ledger(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        assert ledger.created
        assert len(ledger.ledger_id) == 32
        assert (await ledger.verify("full")).ok
        (key,) = await ledger.key_status()
        assert (key.key_id, key.state, key.epoch, key.events) == ("k-old", "active", 1, 3)
        assert not [x async for x in ledger.list(deleted=True)]
    found = await rows(database_url)
    assert [h[0] for h in found["ledger_head"]] == [0]
    assert [e[4] for e in found["secret_event"]] == [
        "key.introduced", "key.activated", "ledger.upgraded",
    ]  # fmt: skip


async def test_creating_a_ledger_is_warned_about_with_the_line_to_pin_it(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(database_url, OLD) as ledger:
        assert f"OS_SECRET_LEDGER_ID={ledger.ledger_id}" in caplog.text
    caplog.clear()
    async with opened(database_url, OLD):
        assert "OS_SECRET_LEDGER_ID" not in caplog.text


async def test_without_create_an_empty_database_is_no_ledger_and_stays_empty(
    database_url: str,
) -> None:
    await refused(database_url, NotALedger, OLD, create=False)
    await refused(database_url, NotALedger, OLD, read_only=True)
    assert not await has_tables(database_url)
    if database_url.startswith("sqlite"):
        assert not Path(file_of(database_url)).exists()


async def test_a_pin_makes_nothing_in_an_empty_place(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong URL, or a volume that was not mounted, can't pass for the real ledger."""
    await refused(database_url, WrongLedger, OLD, ledger_id="ab" * 16)
    monkeypatch.setenv("OS_SECRET_LEDGER_ID", "ab" * 16)
    await refused(database_url, WrongLedger, OLD)
    with pytest.raises(WrongLedger):
        await init_ledger(database_url, Keyring.of(OLD))
    assert not await has_tables(database_url)
    if database_url.startswith("sqlite"):
        assert not Path(file_of(database_url)).exists()


async def test_an_empty_file_becomes_a_ledger(sqlite_url: str) -> None:
    Path(file_of(sqlite_url)).touch()
    await refused(sqlite_url, NotALedger, OLD, create=False)
    assert Path(file_of(sqlite_url)).stat().st_size == 0
    async with opened(sqlite_url, OLD) as ledger:
        assert ledger.created


async def test_another_application_s_file_is_refused_and_stays_byte_for_byte(
    sqlite_url: str,
) -> None:
    path = Path(file_of(sqlite_url))
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE invoices (id INTEGER PRIMARY KEY)")
        other.execute("INSERT INTO invoices VALUES (1)")
    other.close()
    before = sha256(path.read_bytes()).digest()
    error = await refused(sqlite_url, NotALedger, OLD)
    assert "secret-ledger init" in error.hint
    await refused(sqlite_url, NotALedger, OLD, read_only=True)
    await refused(sqlite_url, NotALedger, OLD, create=False)
    assert sha256(path.read_bytes()).digest() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


async def test_init_makes_a_ledger_beside_an_application_s_tables(sqlite_url: str) -> None:
    with sqlite3.connect(file_of(sqlite_url)) as other:
        other.execute("CREATE TABLE invoices (id INTEGER PRIMARY KEY)")
        other.execute("INSERT INTO invoices VALUES (1)")
    other.close()
    made = await init_ledger(sqlite_url, Keyring.of(OLD))
    assert made[1]
    assert await init_ledger(sqlite_url, Keyring.of(OLD)) == (made[0], False)
    async with opened(sqlite_url, OLD, ledger_id=made[0]) as ledger:
        await ledger.put("a", "1")
    assert (await rows(sqlite_url))["invoices"] == [(1,)]


@pytest.mark.parametrize("name", ["secret_current", "ledger_node", "sys_secret"])
async def test_a_table_of_one_of_our_names_is_not_taken_for_a_ledger(
    sqlite_url: str, name: str
) -> None:
    path = Path(file_of(sqlite_url))
    with sqlite3.connect(path) as other:
        other.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY)")
    other.close()
    before = path.read_bytes()
    await refused(sqlite_url, NotALedger, OLD)
    with pytest.raises(NotALedger):
        await init_ledger(sqlite_url, Keyring.of(OLD))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"just some text\n" * 500, b"x", b"SQLite format 3\x00" + b"junk" * 200]
)
async def test_a_file_that_is_no_database_is_refused_and_stays_as_it_is(
    sqlite_url: str, content: bytes
) -> None:
    path = Path(file_of(sqlite_url))
    path.write_bytes(content)
    await refused(sqlite_url, NotALedger, OLD)
    await refused(sqlite_url, NotALedger, OLD, read_only=True)
    assert path.read_bytes() == content


async def test_a_folder_that_does_not_exist_is_an_unavailable_database(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/missing/ledger.db"
    error = await refused(url, LedgerUnavailable, OLD)
    assert "folder" in error.hint
    assert not (tmp_path / "missing").exists()


async def test_another_schema_of_postgresql_is_another_ledger(postgres_url: str) -> None:
    async with opened(postgres_url, OLD) as first, opened(postgres_url, NEW, schema="b") as other:
        assert first.ledger_id != other.ledger_id
        await first.put("a", "1")
        await other.put("a", "2")
        assert (await first.get("a")).value.reveal() == b"1"
    async with opened(postgres_url, NEW, schema="b") as other:
        assert (await other.get("a")).value.reveal() == b"2"


async def test_a_host_s_tables_in_postgresql_are_no_obstacle(postgres_url: str) -> None:
    database = connect(postgres_url)
    await database.run(
        lambda c: c.exec_driver_sql("CREATE TABLE public.ledger_meta (id int)"), "write"
    )
    await database.close()
    async with opened(postgres_url, OLD) as ledger:
        assert ledger.created


async def test_of_racing_first_boots_one_wins_and_another_key_is_refused(
    database_url: str,
) -> None:
    """airflow-operator#694: each process generated its own key."""

    async def start(key: int) -> str | KeyFingerprintMismatch:
        try:
            async with SecretLedger.open(database_url, Keyring.of((OLD, NEW)[key])) as ledger:
                await ledger.put(f"from/{id(ledger)}", "x")
                return ledger.ledger_id
        except KeyFingerprintMismatch as error:
            return error

    outcomes = await asyncio.gather(*(start(n % 2) for n in range(6)))
    ids = [o for o in outcomes if isinstance(o, str)]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    found = await rows(database_url)
    assert len(found["ledger_meta"]) == len(found["ledger_head"]) == len(found["ledger_key"]) == 1


async def test_without_a_usable_url_nothing_of_it_is_shown() -> None:
    for url in ("mysql://u:hunter2@h/d", "hunter2", ""):
        error = await refused(url, LedgerUnavailable, OLD)
        assert "hunter2" not in str(error)
