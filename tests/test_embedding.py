"""How a ledger lives inside a host: its engine, its event loop, its own tables, memory."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from ledgers import OLD, opened
from log_builder import building
from secret_ledger import InvalidName, Keyring, LedgerUnavailable, SecretLedger


async def test_a_host_s_postgresql_engine_is_used_and_not_disposed_of(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url, pool_size=2, max_overflow=0)
    pool = engine.pool
    lent: list[object] = []
    event.listen(engine.sync_engine, "checkout", lambda *a: lent.append(a[0]))
    try:
        async with SecretLedger.open(engine, Keyring.of(OLD)) as ledger:
            await ledger.put("a", "1")
            assert await asyncio.gather(*(ledger.get("a") for _ in range(8)))
        assert len(lent) > 8
        assert len(set(map(id, lent))) <= 2
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
        assert engine.pool is pool  # `dispose` puts a new pool in place
    finally:
        await engine.dispose()


async def test_a_host_s_sqlite_engine_lends_its_url_not_its_pool(sqlite_url: str) -> None:
    engine = create_async_engine(sqlite_url)
    connected: list[object] = []
    event.listen(engine.sync_engine, "connect", lambda *a: connected.append(a))
    try:
        async with SecretLedger.open(engine, Keyring.of(OLD)) as ledger:
            await ledger.put("a", "1")
        assert connected == []
        async with engine.connect() as connection:
            rows = await connection.execute(text("SELECT name, state FROM sys_secret"))
            assert list(rows) == [("a", "live")]
    finally:
        await engine.dispose()


def test_an_event_loop_of_the_user_s_own_opens_it_again_and_again(database_url: str) -> None:
    async def once(number: int) -> bytes:
        async with opened(database_url, OLD) as ledger:
            await ledger.put("a", f"{number}")
            return (await ledger.get("a", version=1)).value.reveal()

    loop = asyncio.new_event_loop()
    try:
        assert [loop.run_until_complete(once(n)) for n in range(4)] == [b"0"] * 4
    finally:
        loop.close()
    assert asyncio.run(once(4)) == b"0"
    for thread in threading.enumerate():
        if thread.name.startswith("ledger-sqlite"):  # its executor was shut down, not waited for
            thread.join(10)
            assert not thread.is_alive()


async def test_one_process_can_have_a_ledger_open_twice(database_url: str) -> None:
    async with opened(database_url, OLD) as one, opened(database_url, OLD) as two:
        await one.put("a", "1")
        assert (await two.get("a")).value.reveal() == b"1"
        assert (await two.put("a", "2", expect=1)).version == 2
        assert (await one.get("a")).value.reveal() == b"2"


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:"])
async def test_an_in_memory_ledger_works_whole_and_is_gone_when_closed(url: str) -> None:
    async with SecretLedger.open(url, Keyring.ephemeral()) as ledger:
        await asyncio.gather(*(ledger.put(f"n/{n}", f"{n}") for n in range(50)))
        await ledger.delete("n/1")
        await ledger.restore("n/1")
        assert (await ledger.get("n/1")).value.reveal() == b"1"
        assert len([i async for i in ledger.list()]) == 50
        assert (await ledger.verify("full")).ok
        assert (await ledger.health()).ready
        first = ledger.ledger_id
    async with SecretLedger.open(url, Keyring.ephemeral()) as ledger:
        assert ledger.ledger_id != first


@pytest.mark.parametrize("name", ["led ger.db", "100%.db", "a?b=c.db", "é#.db"])
async def test_any_file_name_is_the_file_that_is_opened(tmp_path: Path, name: str) -> None:
    url = make_url("sqlite+aiosqlite://").set(database=str(tmp_path / name))
    async with SecretLedger.open(url, Keyring.of(OLD)) as ledger:
        await ledger.put("a", "1")
    assert (tmp_path / name).exists()
    async with SecretLedger.open(url, Keyring.of(OLD), create=False, read_only=True) as ledger:
        assert (await ledger.get("a")).value.reveal() == b"1"


async def test_a_provider_of_keys_is_asked_once_at_boot(sqlite_url: str) -> None:
    class Vault:
        asked = 0

        async def keyring(self) -> Keyring:
            self.asked += 1
            return Keyring.of(OLD)

    vault = Vault()
    async with SecretLedger.open(sqlite_url, vault) as ledger:
        await ledger.put("a", "1")
        await ledger.verify()
    assert vault.asked == 1


async def test_a_read_only_ledger_refuses_every_write(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
    async with opened(database_url, OLD, read_only=True) as ledger:
        assert ledger.read_only
        for call in (
            ledger.put("a", "x"), ledger.put_many({"b": "x"}), ledger.delete("a"),
            ledger.restore("a"), ledger.destroy("a", reason="r"),
        ):  # fmt: skip
            with pytest.raises(LedgerUnavailable, match="read-only"):
                await call
        assert (await ledger.get("a")).version == 1
        assert (await ledger.verify("full")).ok


async def test_a_read_only_ledger_sees_what_others_write(database_url: str) -> None:
    async with (
        opened(database_url, OLD) as writer,
        opened(database_url, OLD, read_only=True) as reader,
    ):
        await writer.put("a", "1")
        assert (await reader.get("a")).value.reveal() == b"1"


@pytest.mark.parametrize("schema", ['x"; DROP', "a b", "1a", "", "x" * 64, "a.b"])
async def test_a_schema_s_name_is_an_identifier(postgres_url: str, schema: str) -> None:
    if not schema:  # stands for the default
        async with opened(postgres_url, OLD, schema=schema):
            return
    with pytest.raises(InvalidName):
        async with opened(postgres_url, OLD, schema=schema):
            pass


async def test_sys_secret_shows_the_current_view_without_any_value(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1", actor="alice")
        await ledger.put("a", "2", actor="bob")
        await ledger.put("b", "1")
        await ledger.delete("b", actor="carol")
    async with building(database_url, OLD) as log:
        found = await log.execute(
            "SELECT name, version, state, key_id, created_by, updated_by"
            " FROM {s}sys_secret ORDER BY name"
        )
        assert found == [
            ("a", 2, "live", "k-old", "alice", "bob"),
            ("b", 2, "deleted", "k-old", None, "carol"),
        ]


async def test_closing_writes_out_what_is_waiting(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        calls = [asyncio.ensure_future(ledger.put(f"n/{n}", "x")) for n in range(200)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(not isinstance(o, BaseException) for o in outcomes)
    async with opened(database_url, OLD) as ledger:
        assert len([i async for i in ledger.list()]) == 200
