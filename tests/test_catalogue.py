"""Is the schema as it was made? Boot, `verify` and `health` say what is not."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import asyncpg
import pytest

from cli_damage import attack
from cli_session import Cli
from conftest import OldLedger
from database_roles import roles_of
from inside import as_text, catalogue, connect
from ledgers import NEW, OLD, file_of, opened, refused
from log_builder import building
from postgresql_server import execute
from secret_ledger import Keyring, TamperedEvent, upgrade_schema

ANSWERING_SQLITE = {
    "a column of another type": (
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql ="
        " replace(replace(sql, 'place      TEXT', 'place BLOB'), ') STRICT', ')')"
        " WHERE name = 'ledger_move'",
        "column ledger_move.place is BLOB, and was made TEXT",
    ),
    "a column of another collation": (
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql ="
        " replace(sql, 'stream          TEXT', 'stream TEXT COLLATE NOCASE')"
        " WHERE name = 'secret_event'",
        "column secret_event.stream is TEXT COLLATE NOCASE",
    ),
    "a table in a function's place": (
        "CREATE TABLE json_each (value TEXT)",
        "stand-in json_each is not the ledger's own",
    ),
}
ANSWERING_POSTGRESQL = {
    "a view in a table's place": (
        "ALTER TABLE secret_ledger.ledger_move RENAME TO elsewhere;"
        " CREATE VIEW secret_ledger.ledger_move AS SELECT * FROM secret_ledger.elsewhere",
        "table ledger_move is gone",
    ),
    "a column of another type": (
        "ALTER TABLE secret_ledger.ledger_move ALTER place TYPE varchar",
        "column ledger_move.place is pg_catalog.varchar",
    ),
    "a column of another collation": (
        'ALTER TABLE secret_ledger.ledger_move ALTER place TYPE text COLLATE "C"',
        "column ledger_move.place is pg_catalog.text C",
    ),
    "a rule": (
        "CREATE RULE quiet AS ON DELETE TO secret_ledger.ledger_move DO INSTEAD NOTHING",
        "rule ledger_move.quiet is not the ledger's own",
    ),
    "a table with a child": (
        "CREATE TABLE secret_ledger.child () INHERITS (secret_ledger.secret_event)",
        "inheritance secret_event is not the ledger's own",
    ),
    "a table that a crash empties": (
        "ALTER TABLE secret_ledger.ledger_move SET UNLOGGED",
        "table ledger_move is not kept after a crash",
    ),
}
GUARDING_SQLITE = {
    "a trigger gone": ("DROP TRIGGER secret_event_no_delete", "secret_event_no_delete is gone"),
    "all triggers gone": (
        "DROP TRIGGER secret_event_no_delete; DROP TRIGGER secret_event_no_update;"
        " DROP TRIGGER secret_event_no_replace",
        "secret_event_no_update is gone",
    ),
    "a trigger that does nothing": (
        "DROP TRIGGER secret_event_no_update; CREATE TRIGGER secret_event_no_update"
        " BEFORE UPDATE ON secret_event BEGIN SELECT 1; END",
        "trigger secret_event_no_update has another text",
    ),
}
GUARDING_POSTGRESQL = {
    "a trigger gone": (
        "DROP TRIGGER secret_event_append_only ON secret_ledger.secret_event",
        "secret_event.secret_event_append_only is gone",
    ),
    "all triggers gone": (
        "DROP FUNCTION secret_ledger.secret_event_append_only() CASCADE",
        "function secret_event_append_only is gone",
    ),
    "a dump restored with --disable-triggers": (
        "ALTER TABLE secret_ledger.secret_event DISABLE TRIGGER ALL;"
        " ALTER TABLE secret_ledger.secret_event ENABLE TRIGGER ALL",
        "secret_event.secret_event_append_only is not in force everywhere",
    ),
    "its triggers left disabled": (
        "ALTER TABLE secret_ledger.secret_event DISABLE TRIGGER USER",
        "secret_event.secret_event_no_truncate is disabled",
    ),
    "a trigger that does nothing": (
        "CREATE OR REPLACE FUNCTION secret_ledger.secret_event_append_only() RETURNS trigger"
        " LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        "function secret_event_append_only has another text",
    ),
}
NOT_MENDED_SQLITE = {
    "a table that is not STRICT": (
        "PRAGMA writable_schema = ON;"
        " UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'secret_event'",
        "definition secret_event has another text",
    ),
    "a trigger of somebody else": (
        "CREATE TRIGGER planted AFTER INSERT ON secret_event BEGIN SELECT 1; END",
        "trigger planted is not the ledger's own",
    ),
}
NOT_MENDED_POSTGRESQL = {
    "a column that may be NULL": (
        "ALTER TABLE {s}secret_event ALTER metadata DROP NOT NULL",
        "constraint secret_event.metadata is gone",
    ),
    "a trigger of somebody else": (
        "CREATE TRIGGER planted AFTER INSERT ON {s}secret_event",
        "planted is not the ledger's own",
    ),
    "a unique index gone": (
        "ALTER TABLE {s}secret_event DROP CONSTRAINT secret_event_pkey",
        "unique index secret_event (generation, position) is gone",
    ),
    "foreign keys left out of force": (
        "ALTER TABLE {s}secret_event DISABLE TRIGGER ALL;"
        " ALTER TABLE {s}secret_event ENABLE ALWAYS TRIGGER secret_event_no_delete;"
        " ALTER TABLE {s}secret_event ENABLE ALWAYS TRIGGER secret_event_append_only;"
        " ALTER TABLE {s}secret_event ENABLE ALWAYS TRIGGER secret_event_no_truncate",
        "foreign keys of secret_event",
    ),
}


async def change(url: str, sql: str) -> None:
    """By somebody with SQL access."""
    if url.startswith("sqlite"):
        plain = sqlite3.connect(file_of(url), isolation_level=None)
        try:
            plain.executescript(sql)
        finally:
            plain.close()
        return
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def cases(sqlite: Sequence[str], postgresql: Sequence[str]) -> list[tuple[str, str]]:
    return [*(("sqlite", each) for each in sqlite), *(("postgresql", each) for each in postgresql)]


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    given: str = request.getfixturevalue("sqlite_url" if kind == "sqlite" else "postgres_url")
    return given


async def found(url: str) -> catalogue.Deviations:
    database = connect(url)
    try:
        return await database.run(lambda c: catalogue.deviations(c, database), "statement")
    finally:
        await database.close()


async def test_a_new_ledger_is_as_it_was_made(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        database = ledger.database
        facts = await database.run(database.facts, "statement")
        # `made.txt` holds these lines: what differs is to be written there.
        assert as_text(facts) == as_text(database.made())
        assert await found(database_url) == catalogue.Deviations()
        assert ledger.warnings == ()
        assert (await ledger.verify("full")).warnings == ()


async def test_an_upgraded_ledger_is_as_a_new_one_is_made(old_ledger: OldLedger) -> None:
    assert await found(old_ledger.url) != catalogue.Deviations()
    await upgrade_schema(*old_ledger)
    assert await found(old_ledger.url) == catalogue.Deviations()


@pytest.mark.parametrize(("kind", "what"), cases([*ANSWERING_SQLITE], [*ANSWERING_POSTGRESQL]))
async def test_no_ledger_is_opened_whose_statements_may_be_answered_otherwise(
    url: str, kind: str, what: str
) -> None:
    sql, told = (ANSWERING_SQLITE if kind == "sqlite" else ANSWERING_POSTGRESQL)[what]
    async with opened(url, OLD) as ledger:
        await ledger.put("a", "1")
        await change(url, sql)
        health = await ledger.health()
        assert not health.ready
        assert any(told in reason for reason in health.reasons)
        report = await ledger.verify()
        assert [told in finding.reason for finding in report.findings if "made" in finding.reason]
        assert not report.ok
    for options in ({}, {"read_only": True}, {"verify": "full"}, {"verify": "incremental"}):
        error = await refused(url, TamperedEvent, OLD, **options)
        assert told in error.message
        assert "whatever the key" in error.message
    async with opened(url, OLD, verify="control") as ledger:  # for who has to look at it
        assert any(told in warning for warning in ledger.warnings)


async def test_row_level_security_that_hides_rows_from_this_role_is_refused(
    own_postgres_url: str,
) -> None:
    with roles_of(own_postgres_url) as roles:
        async with opened(roles.owner, OLD) as ledger:
            await ledger.put("a", "1")
        roles.grant()
        execute(roles.owner, "ALTER TABLE secret_ledger.secret_event ENABLE ROW LEVEL SECURITY")
        execute(
            roles.owner,
            "CREATE POLICY few ON secret_ledger.secret_event USING (position < 1000000)",
        )
        error = await refused(roles.runtime, TamperedEvent, OLD)
        assert "row-level security secret_event" in error.message
        async with opened(roles.owner, OLD) as ledger:  # it is not in force for the owner
            assert (await ledger.get("a")).value.reveal() == b"1"


@pytest.mark.parametrize(("kind", "what"), cases([*GUARDING_SQLITE], [*GUARDING_POSTGRESQL]))
async def test_triggers_that_are_not_as_they_were_made_are_told_and_put_back(
    url: str, kind: str, what: str
) -> None:
    sql, told = (GUARDING_SQLITE if kind == "sqlite" else GUARDING_POSTGRESQL)[what]
    async with opened(url, OLD) as ledger:
        await ledger.put("a", "1")
        await change(url, sql)
    async with opened(url, OLD, verify="full") as ledger:
        health = await ledger.health()
        assert (health.ready, health.state) == (True, "degraded")
        report = await ledger.verify("full")
        assert report.ok
        for said in (ledger.warnings, health.reasons, report.warnings):
            (warning,) = [each for each in said if told in each]
            assert "secret-ledger schema upgrade" in warning
    assert await upgrade_schema(url, Keyring.of(OLD)) == ["guards.sql"]
    assert await upgrade_schema(url, Keyring.of(OLD)) == []
    assert await found(url) == catalogue.Deviations()
    async with opened(url, OLD) as ledger:
        assert ledger.warnings == ()
        assert (await ledger.health()).state == "ready"


@pytest.mark.parametrize(("kind", "what"), cases([*NOT_MENDED_SQLITE], [*NOT_MENDED_POSTGRESQL]))
async def test_what_an_upgrade_does_not_put_back_is_told_all_the_same(
    url: str, kind: str, what: str
) -> None:
    sql, told = (NOT_MENDED_SQLITE if kind == "sqlite" else NOT_MENDED_POSTGRESQL)[what]
    if what.startswith("a trigger") and kind == "postgresql":
        sql = (
            "CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql"
            f" AS 'BEGIN RETURN NULL; END'; {sql} FOR EACH ROW EXECUTE FUNCTION public.nothing()"
        )
    async with opened(url, OLD) as ledger:
        await ledger.put("a", "1")
        await change(url, sql.replace("{s}", "secret_ledger."))
        report = await ledger.verify()
        assert report.ok
        (warning,) = report.warnings
        assert told in warning
        assert "schema upgrade" not in warning
    assert await upgrade_schema(url, Keyring.of(OLD)) == []


async def test_an_index_that_only_speeds_things_up_is_nothing_to_tell(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        sql = "CREATE INDEX faster ON {s}secret_event (recorded_at)"
        place = ledger.database.statements.prefix
        await change(database_url, sql.replace("{s}", place))
    assert await found(database_url) == catalogue.Deviations()


def test_the_command_line_says_what_differs_and_mends_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = Cli(monkeypatch, database_url)
    assert cli("init").code == 0
    attack(cli)  # which leaves no trigger in force
    for words in (["verify", "--level", "full"], ["health"]):
        done = cli(*words)
        assert done.code == 0
        assert "secret-ledger schema upgrade" in done.out + done.err
    assert "nothing is wrong" not in cli("verify").out
    assert cli("schema", "upgrade").out == "guards.sql\n"
    assert "has another" not in cli("verify").err


# --- a schema that was renamed (PostgreSQL) --------------------------------------------------


async def renamed(url: str, *, decoy: bool) -> None:
    """The schema under another name; in its old place another ledger, or nothing."""
    execute(url, "ALTER SCHEMA secret_ledger RENAME TO vault")
    if decoy:
        async with opened(url, OLD):
            pass


@pytest.mark.parametrize("decoy", [False, True], ids=["alone", "beside another"])
async def test_a_ledger_whose_schema_was_renamed_can_purge(postgres_url: str, decoy: bool) -> None:
    async with opened(postgres_url, OLD) as ledger:
        await ledger.put("a", "1")
    await renamed(postgres_url, decoy=decoy)
    async with opened(postgres_url, NEW, OLD, schema="vault") as ledger:
        assert ledger.warnings == ()
        await ledger.migrate()
        assert (await ledger.purge_generation(0)).deleted > 0
    async with opened(postgres_url, NEW, schema="vault", verify="full") as ledger:
        assert (await ledger.get("a")).value.reveal() == b"1"


async def test_an_older_ledger_whose_schema_was_renamed_can_purge_once_it_is_upgraded(
    postgres_url: str,
) -> None:
    async with building(postgres_url, OLD, upto=5) as log:
        await log.put("a", b"1")
    await renamed(postgres_url, decoy=True)
    await upgrade_schema(postgres_url, Keyring.of(OLD), schema="vault")
    async with opened(postgres_url, NEW, OLD, schema="vault") as ledger:
        await ledger.migrate()
        await ledger.purge_generation(0)
    async with opened(postgres_url, NEW, schema="vault", verify="full") as ledger:
        assert (await ledger.get("a")).value.reveal() == b"1"
