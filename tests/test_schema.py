"""The schema: append-only by its triggers, the same fresh or upgraded, never changed by a
start that is refused."""

from __future__ import annotations

import pytest

from inside import SCHEMA_VERSION, Connection, Database, connect, steps
from ledgers import OLD, STRANGER, opened, refused, rows
from log_builder import LogBuilder, building
from secret_ledger import (
    KeyFingerprintMismatch,
    Keyring,
    LedgerUnavailable,
    NotALedger,
    SchemaOutdated,
    SchemaTooNew,
    TamperedEvent,
    WrongLedger,
    upgrade_schema,
)

REFUSED_CHANGES = [
    "UPDATE {s}secret_event SET metadata = '{}'",
    "UPDATE {s}secret_event SET position = position + 100 WHERE position = 3",
    "DELETE FROM {s}secret_event",
    "DELETE FROM {s}secret_event WHERE position = 3",
]
REFUSED_BY_SQLITE = [
    "INSERT OR REPLACE INTO secret_event SELECT * FROM secret_event WHERE position = 3",
    "REPLACE INTO secret_event SELECT generation, 99, stream, version, event_type, key_id,"
    " key_fingerprint, recorded_at, metadata, prev_hash, sealed, event_hash"
    " FROM secret_event WHERE position = 3",
    "INSERT OR IGNORE INTO secret_event SELECT * FROM secret_event WHERE position = 3",
    "UPDATE OR REPLACE secret_event SET version = 1, stream = 'a' WHERE position = 4",
]
REFUSED_BY_POSTGRESQL = [
    "TRUNCATE {s}secret_event",
    "TRUNCATE {s}ledger_key CASCADE",
    "INSERT INTO {s}secret_event SELECT * FROM {s}secret_event WHERE position = 3"
    " ON CONFLICT (generation, position) DO UPDATE SET metadata = '{}'",
    "SET LOCAL session_replication_role = replica; DELETE FROM {s}secret_event",
]


async def some_events(log: LogBuilder) -> None:
    await log.put("a", b"1")
    await log.put("b", b"2")


async def raw(database: Database, sql: str) -> None:
    """Statements as they are, in one transaction."""

    def unit(connection: Connection) -> None:
        for statement in sql.replace("{s}", database.statements.prefix).split("; "):
            connection.exec_driver_sql(statement)

    await database.run(unit, "write")


@pytest.mark.parametrize("change", REFUSED_CHANGES)
async def test_events_can_t_be_changed_or_deleted(database_url: str, change: str) -> None:
    async with building(database_url, OLD) as log:
        await some_events(log)
        before = await rows(database_url)
        with pytest.raises(LedgerUnavailable):
            await raw(log.database, change)
    assert await rows(database_url) == before


@pytest.mark.parametrize("change", REFUSED_BY_SQLITE)
async def test_no_event_is_replaced_on_sqlite(sqlite_url: str, change: str) -> None:
    async with building(sqlite_url, OLD) as log:
        await some_events(log)
        before = await rows(sqlite_url)
        with pytest.raises(LedgerUnavailable):
            await raw(log.database, change)
    assert await rows(sqlite_url) == before


@pytest.mark.parametrize("change", REFUSED_BY_POSTGRESQL)
async def test_no_event_is_truncated_or_upserted_on_postgresql(
    postgres_url: str, change: str
) -> None:
    async with building(postgres_url, OLD) as log:
        await some_events(log)
        before = await rows(postgres_url)
        with pytest.raises(LedgerUnavailable):
            await raw(log.database, change)
    assert await rows(postgres_url) == before


async def test_only_a_generation_being_purged_can_be_deleted(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await some_events(log)
        await log.migrate()
        delete = "DELETE FROM {s}secret_event WHERE generation = 0"
        for state in ("closed", "purged", "building"):
            await log.set_head(0, state=state)
            with pytest.raises(LedgerUnavailable):
                await raw(log.database, delete)
        await log.set_head(0, state="purging")
        with pytest.raises(LedgerUnavailable):
            await raw(log.database, "DELETE FROM {s}secret_event")  # generation 1 is not
        with pytest.raises(LedgerUnavailable):
            await raw(log.database, "UPDATE {s}secret_event SET version = 9 WHERE generation = 0")
        await raw(log.database, delete)
        await log.set_head(0, state="purged")
    async with opened(database_url, OLD) as ledger:
        assert (await ledger.get("a")).value.reveal() == b"1"
    # What the database lets go is still missed: no sealed event says that it was purged.
    error = await refused(database_url, TamperedEvent, OLD, verify="full")
    assert "no sealed event says that it was purged" in error.message


async def test_an_event_under_a_key_that_is_not_stored_is_refused(database_url: str) -> None:
    """grafana#63419: data encrypted with a key missing from the database."""
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        with pytest.raises(LedgerUnavailable):
            await raw(log.database, "DELETE FROM {s}ledger_key")


async def test_a_wrapped_key_has_its_place_by_key_and_hash_a_bound_and_can_be_taken_out(
    database_url: str,
) -> None:
    """Of a key that the ledger does not know yet, too."""
    insert = (
        "INSERT INTO {s}ledger_wrap (key_fingerprint, wrap_hash, wrapped)"
        " VALUES (:key_fingerprint, :wrap_hash, :wrapped)"
    )
    row = {"key_fingerprint": bytes(32), "wrap_hash": bytes(32), "wrapped": b"x" * 8192}
    wrong = {
        "key_fingerprint": bytes(31),
        "wrap_hash": bytes(33),
        "wrapped": b"x" * 8193,
    }
    async with building(database_url, OLD) as log:
        await log.execute(insert, **row)
        for column, value in (*wrong.items(), ("wrapped", b""), ("wrap_hash", bytes(32))):
            with pytest.raises(LedgerUnavailable):
                await log.execute(insert, **{**row, column: value})
        await log.execute(insert, **{**row, "wrap_hash": b"w" * 32})
        await log.execute("DELETE FROM {s}ledger_wrap WHERE wrap_hash = :hash", hash=bytes(32))
    assert [bytes(r[1]) for r in (await rows(database_url))["ledger_wrap"]] == [b"w" * 32]


# --- versions --------------------------------------------------------------------------------


async def schema_of(url: str) -> list[tuple[object, ...]]:
    """Everything that the database says of its own tables, indexes, triggers and views."""
    database = connect(url)
    if database.name == "sqlite":
        queries = ["SELECT type, name, tbl_name, sql FROM sqlite_master"]
    else:
        queries = [
            "SELECT table_name, column_name, data_type, is_nullable, collation_name,"
            " ordinal_position FROM information_schema.columns"
            " WHERE table_schema = 'secret_ledger'",
            "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'secret_ledger'",
            "SELECT event_object_table, trigger_name, event_manipulation, action_statement"
            " FROM information_schema.triggers WHERE trigger_schema = 'secret_ledger'",
            "SELECT tgname, tgenabled, tgtype FROM pg_trigger WHERE NOT tgisinternal",
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'secret_ledger'::regnamespace",
            "SELECT viewname, definition FROM pg_views WHERE schemaname = 'secret_ledger'",
            "SELECT relname, reloptions FROM pg_class"
            " WHERE relnamespace = 'secret_ledger'::regnamespace",
        ]
    try:
        return await database.run(
            lambda c: sorted(
                (tuple(row) for query in queries for row in c.exec_driver_sql(query)), key=repr
            ),
            "snapshot",
        )
    finally:
        await database.close()


def test_both_dialects_have_the_same_numbered_files() -> None:
    assert [s[:2] for s in steps("sqlite")] == [s[:2] for s in steps("postgresql")]
    assert [s[0] for s in steps("sqlite")] == list(range(1, SCHEMA_VERSION + 1))


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
async def test_an_older_ledger_is_refused_and_upgraded_to_what_a_fresh_one_has(
    database_url: str, version: int
) -> None:
    async with building(database_url, OLD, upto=version) as log:
        await log.put("a", b"1")
    before = await rows(database_url)
    for options in ({}, {"read_only": True}, {"create": False}):
        error = await refused(database_url, SchemaOutdated, OLD, **options)
        assert "secret-ledger schema upgrade" in error.hint
    assert await rows(database_url) == before

    done = await upgrade_schema(database_url, Keyring.of(OLD))
    assert [int(name[:4]) for name in done] == list(range(version + 1, SCHEMA_VERSION + 1))
    assert await upgrade_schema(database_url, Keyring.of(OLD)) == []
    upgraded = await schema_of(database_url)
    async with opened(database_url, OLD, verify="full") as ledger:
        assert (await ledger.get("a")).value.reveal() == b"1"
        assert (await ledger.put("a", "2")).version == 2
        assert (await ledger.verify("full")).ok
    assert upgraded == await schema_of(await fresh(database_url))


async def fresh(url: str) -> str:
    """A ledger made today: in the same PostgreSQL database, emptied, or in another file."""
    database = connect(url)
    if database.name == "postgresql":
        await raw(database, "DROP SCHEMA secret_ledger CASCADE")
    else:
        url = url.replace("ledger.db", "fresh.db")
    await database.close()
    async with opened(url, OLD, projections=()):
        return url


async def test_a_wrong_key_changes_no_schema(database_url: str) -> None:
    """metabase#42612: a start without the key broke a schema migration."""
    async with building(database_url, OLD, upto=1) as log:
        await log.put("a", b"1")
    before, schema = await rows(database_url), await schema_of(database_url)
    with pytest.raises(KeyFingerprintMismatch):
        await upgrade_schema(database_url, Keyring.of(STRANGER))
    with pytest.raises(WrongLedger):
        await upgrade_schema(database_url, Keyring.of(OLD), ledger_id="ab" * 16)
    await refused(database_url, SchemaOutdated, STRANGER)
    assert await rows(database_url) == before
    assert await schema_of(database_url) == schema


async def test_there_is_nothing_to_upgrade_where_there_is_no_ledger(database_url: str) -> None:
    with pytest.raises(NotALedger):
        await upgrade_schema(database_url, Keyring.of(OLD))


@pytest.mark.parametrize(
    "newer",
    ["UPDATE {s}ledger_meta SET schema_version = 99", "UPDATE {s}ledger_meta SET format = 99"],
)
async def test_a_newer_ledger_is_refused_and_left_alone(database_url: str, newer: str) -> None:
    async with building(database_url, OLD) as log:
        await log.execute(newer)
    before = await rows(database_url)
    await refused(database_url, SchemaTooNew, OLD)
    await refused(database_url, SchemaTooNew, STRANGER, read_only=True)
    with pytest.raises(SchemaTooNew):
        await upgrade_schema(database_url, Keyring.of(OLD))
    assert await rows(database_url) == before
