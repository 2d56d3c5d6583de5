"""PostgreSQL's schema by setting: two ledgers in one database that don't touch each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from cli_session import KEY, NEW_KEY, Cli
from inside import LEDGER_SCHEMA, connect
from key_material import write
from ledgers import NEW, OLD, opened, refused, rows
from secret_ledger import (
    InvalidKey,
    InvalidName,
    Keyring,
    NotALedger,
    init_ledger,
    open_unverified,
    upgrade_schema,
)


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv(LEDGER_SCHEMA, raising=False)
    return monkeypatch


async def everything(url: str, schema: str) -> object:
    """All rows of a schema's tables, whoever's they are."""
    database = connect(url, schema=schema)
    try:
        names = await database.run(database.tables, "snapshot")
        prefix = database.statements.prefix
        queries = {n: text(f"SELECT * FROM {prefix}{n}") for n in sorted(names)}  # noqa: S608
        return await database.run(
            lambda c: {n: sorted(map(repr, c.execute(q))) for n, q in queries.items()}, "snapshot"
        )
    finally:
        await database.close()


async def test_two_ledgers_in_two_schemas_of_one_database_do_not_touch_each_other(
    postgres_url: str, setting: pytest.MonkeyPatch
) -> None:
    async with opened(postgres_url, OLD) as first:
        await first.put("a", "1")
    before = await everything(postgres_url, "secret_ledger")

    setting.setenv(LEDGER_SCHEMA, "tenant")
    async with opened(postgres_url, NEW) as second:
        assert second.created
        assert second.ledger_id != first.ledger_id
        await second.put("a", "2")
        await second.rotate(OLD)
        await second.rekey()
        await second.destroy("a", reason="over")
        assert (await second.verify("full")).ok
    assert await everything(postgres_url, "secret_ledger") == before

    setting.delenv(LEDGER_SCHEMA)
    async with opened(postgres_url, OLD, verify="full") as first:
        assert (await first.get("a")).value.reveal() == b"1"


async def test_every_way_in_takes_the_setting_and_a_given_schema_goes_before_it(
    postgres_url: str, setting: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setting.setenv(f"{LEDGER_SCHEMA}_FILE", write(tmp_path / "schema", "tenant\n", 0o644))
    ledger_id, created = await init_ledger(postgres_url, Keyring.of(OLD))
    assert created
    assert await upgrade_schema(postgres_url, Keyring.of(OLD)) == []
    async with open_unverified(postgres_url) as unverified:
        assert unverified.ledger_id == ledger_id
    async with opened(postgres_url, OLD, create=False) as ledger:
        assert ledger.ledger_id == ledger_id
    error = await refused(postgres_url, NotALedger, OLD, create=False, schema="secret_ledger")
    assert "tenant" not in error.message


async def test_what_is_missing_is_missing_from_the_schema_that_is_named(
    postgres_url: str, setting: pytest.MonkeyPatch
) -> None:
    setting.setenv(LEDGER_SCHEMA, "tenant")
    error = await refused(postgres_url, NotALedger, OLD, create=False)
    assert "(schema tenant)" in error.message


async def test_a_setting_that_names_no_schema_is_refused(
    postgres_url: str, setting: pytest.MonkeyPatch
) -> None:
    setting.setenv(LEDGER_SCHEMA, "a b")
    await refused(postgres_url, InvalidName, OLD)
    setting.setenv(LEDGER_SCHEMA, " ")
    await refused(postgres_url, InvalidKey, OLD)


async def test_sqlite_has_no_schema_and_passes_it_over(
    sqlite_url: str, setting: pytest.MonkeyPatch
) -> None:
    setting.setenv(LEDGER_SCHEMA, "tenant")
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
    assert "ledger_meta" in await rows(sqlite_url)


def test_the_command_line_takes_the_setting_too(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = Cli(monkeypatch, postgres_url)
    assert cli("put", "a", value=b"1").code == 0
    cli.set(LEDGER_SCHEMA, "tenant")
    cli.hold(NEW_KEY)
    assert cli("put", "a", value=b"2").code == 0
    assert cli("get", "a").raw == b"2"
    assert cli("nodes").code == 0
    cli.hold(KEY)
    assert cli("get", "a").code == 11
    assert cli("get", "a", "--schema", "secret_ledger").raw == b"1"
    assert '"tenant".secret_event' in cli("schema", "grants", "--role", "app").out
    cli.set(LEDGER_SCHEMA, None)
    assert cli("get", "a").raw == b"1"
