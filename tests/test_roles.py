"""The rights that `schema grants` prints: enough for each role's work, and no more."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest

from cli_session import Cli
from daily_use import read, use
from database_roles import Roles, name_of, roles_of
from inside import grants
from ledgers import NEW, OLD, STRANGER, lines, opened, refused, rows
from postgresql_server import execute
from secret_ledger import (
    InvalidName,
    KeyFingerprintMismatch,
    Keyring,
    LedgerUnavailable,
    NotALedger,
    init_ledger,
    upgrade_schema,
)


@pytest.fixture
def empty(own_postgres_url: str) -> Iterator[Roles]:
    """Three roles, and no ledger yet."""
    with roles_of(own_postgres_url) as roles:
        yield roles


@pytest.fixture
async def roles(empty: Roles) -> Roles:
    """Three roles with the rights that are documented, on a ledger of the owner's."""
    _, created = await init_ledger(empty.owner, Keyring.of(OLD))
    assert created
    empty.grant()
    return empty


async def test_the_runtime_role_can_do_all_that_a_service_does(roles: Roles) -> None:
    async with opened(roles.runtime, OLD, create=False) as ledger:
        await use(ledger, "before")
        assert (await ledger.rotate(NEW)).changed
        assert (await ledger.rekey()).ok
        await use(ledger, "after")
        assert [k.key_id for k in await ledger.key_history()] == ["k-old", "k-new"]
        assert [g.state for g in await ledger.generations()] == ["active"]
    async with opened(roles.runtime, NEW) as ledger:
        await ledger.lost("k-old", reason="the only copy is gone")
        await ledger.put("again", "1")
        assert (await ledger.verify("full")).ok
    await refused(roles.runtime, KeyFingerprintMismatch, STRANGER)
    assert [line.state for line in await lines(roles.runtime)] == ["refused"]


HARMFUL = (
    "UPDATE {s}secret_event SET metadata = metadata",
    "UPDATE {s}secret_event SET sealed = '' WHERE false",
    "DELETE FROM {s}secret_event",
    "TRUNCATE {s}secret_event",
    "INSERT INTO {s}secret_event SELECT * FROM {s}secret_event"
    " ON CONFLICT (generation, position) DO UPDATE SET sealed = ''",
    "UPDATE {s}ledger_head SET state = 'purging'",
    "UPDATE {s}ledger_head SET generation = 7",
    "INSERT INTO {s}ledger_head VALUES (1, 0, 0, 1, 'building')",
    "DELETE FROM {s}ledger_head",
    "UPDATE {s}ledger_key SET key_id = 'other'",
    "DELETE FROM {s}ledger_key",
    "UPDATE {s}ledger_wrap SET wrapped = wrapped",
    "UPDATE {s}ledger_meta SET schema_version = 99",
    "DELETE FROM {s}ledger_meta",
    "TRUNCATE {s}secret_current",
    "ALTER TABLE {s}secret_event DISABLE TRIGGER secret_event_append_only",
    "ALTER TABLE {s}secret_event DISABLE TRIGGER ALL",
    "DROP TRIGGER secret_event_append_only ON {s}secret_event",
    "CREATE TRIGGER mine BEFORE INSERT ON {s}secret_event"
    " FOR EACH ROW EXECUTE FUNCTION {s}secret_event_append_only()",
    "CREATE OR REPLACE FUNCTION {s}secret_event_append_only() RETURNS trigger"
    " LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
    "DROP FUNCTION {s}secret_event_append_only() CASCADE",
    "CREATE RULE quiet AS ON INSERT TO {s}secret_event DO INSTEAD NOTHING",
    "ALTER TABLE {s}secret_event ADD COLUMN extra text",
    "ALTER TABLE {s}secret_event ENABLE ROW LEVEL SECURITY",
    "DROP TABLE {s}secret_event CASCADE",
    "DROP VIEW {s}sys_secret",
    "CREATE TABLE {s}mine (id int)",
    "CREATE INDEX ON {s}secret_event (recorded_at)",
    "ALTER SCHEMA secret_ledger RENAME TO gone",
    "DROP SCHEMA secret_ledger CASCADE",
    "SET session_replication_role = replica",
)


@pytest.mark.parametrize("role", ["runtime", "reader"])
async def test_neither_role_can_harm_what_is_written(roles: Roles, role: str) -> None:
    async with opened(roles.runtime, OLD) as ledger:
        await ledger.put("a", "1")
    before = await rows(roles.owner)
    url = getattr(roles, role)
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        for statement in (*HARMFUL, f"SET ROLE {name_of(roles.owner)}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement.format(s="secret_ledger."))
    finally:
        await connection.close()
    assert await rows(roles.owner) == before


@pytest.mark.parametrize("table", ["secret_event", "secret_current", "ledger_node"])
async def test_a_reader_writes_nothing_anywhere(roles: Roles, table: str) -> None:
    for statement in (
        f"INSERT INTO secret_ledger.{table} SELECT * FROM secret_ledger.{table}",  # noqa: S608
        f"DELETE FROM secret_ledger.{table}",  # noqa: S608
        f"SELECT * FROM secret_ledger.{table} FOR UPDATE",  # noqa: S608
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            execute(roles.reader, statement)


async def test_a_reader_can_read_list_and_verify(roles: Roles) -> None:
    async with opened(roles.runtime, OLD) as ledger:
        await use(ledger, "a")
        await ledger.put_many({f"many/{n}": "x" for n in range(300)})
        async with opened(roles.reader, OLD, read_only=True, verify="full") as reader:
            await read(reader, "a")
            assert [n.state for n in await reader.nodes()] == ["live"]
    await refused(roles.reader, KeyFingerprintMismatch, STRANGER, read_only=True)


async def test_a_reader_that_opens_to_write_is_told_so(roles: Roles) -> None:
    error = await refused(roles.reader, LedgerUnavailable, OLD)
    assert error.details["sqlstate"] == "42501"
    assert "schema grants" in error.hint


async def test_a_role_without_rights_is_told_who_can_give_them(empty: Roles) -> None:
    await init_ledger(empty.owner, Keyring.of(OLD))
    for role in (empty.runtime, empty.reader):
        error = await refused(role, LedgerUnavailable, OLD, read_only=role == empty.reader)
        assert error.details["sqlstate"] == "42501"
        assert "schema grants" in error.hint


@pytest.mark.parametrize("schema", ["secret_ledger", "not_there"])
async def test_where_there_is_no_ledger_yet_the_runtime_role_is_told_the_way_out(
    empty: Roles, schema: str
) -> None:
    role = name_of(empty.runtime)
    execute(empty.owner, f"GRANT USAGE ON SCHEMA secret_ledger TO {role}")
    error = await refused(empty.runtime, NotALedger, OLD, schema=schema)
    assert f"role {role} may not make one" in error.message
    assert "secret-ledger init" in error.hint
    assert "schema grants" in error.hint
    with pytest.raises(NotALedger, match="may not make one"):
        await init_ledger(empty.runtime, Keyring.of(OLD), schema=schema)


async def test_a_role_that_may_make_schemas_makes_its_own(empty: Roles) -> None:
    database = empty.admin.rpartition("/")[2]
    execute(empty.admin, f"GRANT CREATE ON DATABASE {database} TO {name_of(empty.runtime)}")
    async with opened(empty.runtime, OLD, schema="mine") as ledger:
        assert ledger.created
        await use(ledger, "a")


async def test_migrating_and_purging_are_the_owner_s_work(roles: Roles) -> None:
    async with opened(roles.runtime, OLD) as service:
        await service.put("a", "1")
        await service.rotate(NEW)
        before = await rows(roles.owner, "ledger_node")
        with pytest.raises(LedgerUnavailable) as caught:
            await service.migrate()
        assert caught.value.details["sqlstate"] == "42501"
        assert "schema grants" in caught.value.hint
        assert await rows(roles.owner, "ledger_node") == before

        async with opened(roles.owner, NEW, OLD) as owner:
            await owner.migrate()
        await service.put("a", "2")
        with pytest.raises(LedgerUnavailable):
            await service.purge_generation(0)
        async with opened(roles.owner, NEW, OLD) as owner:
            await owner.purge_generation(0)
        await service.retire("k-old")
    async with opened(roles.runtime, NEW, verify="full") as service:
        assert (await service.get("a")).value.reveal() == b"2"


async def test_upgrading_the_schema_is_the_owner_s_work(roles: Roles) -> None:
    with pytest.raises(LedgerUnavailable) as caught:
        await upgrade_schema(roles.runtime, Keyring.of(OLD))
    assert caught.value.details["sqlstate"] == "42501"
    assert await upgrade_schema(roles.owner, Keyring.of(OLD)) == []


async def test_every_table_and_view_is_in_both_scripts(roles: Roles) -> None:
    for role in (roles.runtime, roles.reader):
        connection = await asyncpg.connect(role.replace("+asyncpg", ""))
        found = await connection.fetch(
            "SELECT relname, has_table_privilege(oid, 'SELECT') AS granted FROM pg_class"
            " WHERE relnamespace = 'secret_ledger'::regnamespace AND relkind IN ('r', 'p', 'v')"
        )
        await connection.close()
        assert len(found) >= 8
        assert [row["relname"] for row in found if not row["granted"]] == []


async def test_running_it_again_takes_back_what_was_too_much(roles: Roles) -> None:
    for role in map(name_of, (roles.runtime, roles.reader)):
        execute(roles.owner, f"GRANT ALL ON ALL TABLES IN SCHEMA secret_ledger TO {role}")
        execute(roles.owner, f"GRANT ALL ON SCHEMA secret_ledger TO {role}")
    roles.grant()
    for role in (roles.runtime, roles.reader):
        for statement in ("DELETE FROM {s}ledger_key", "CREATE TABLE {s}mine (id int)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                execute(role, statement.format(s="secret_ledger."))
    async with opened(roles.runtime, OLD) as ledger:
        await use(ledger, "a")


async def test_a_role_may_have_any_name(roles: Roles) -> None:
    name = 'we"ird; {s} {role} --'
    quoted = '"' + name.replace('"', '""') + '"'
    execute(roles.admin, f"CREATE ROLE {quoted}")
    try:
        for read_only in (False, True):
            execute(roles.owner, grants(name, read_only=read_only))
    finally:
        execute(roles.admin, f"DROP OWNED BY {quoted}")
        execute(roles.admin, f"DROP ROLE {quoted}")


@pytest.mark.parametrize("name", ["public", "", "a\nb", "\x00", "ü" * 32])
def test_what_is_no_role_gets_no_script(name: str) -> None:
    with pytest.raises(InvalidName):
        grants(name)


def test_the_command_prints_the_script_and_needs_neither_key_nor_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cli = Cli(monkeypatch, "")
    cli.set("OS_SECRET_LEDGER_URL", None)
    cli.hold(None)
    assert cli("schema", "grants", "--role", "app").out == grants("app")
    words = ("schema", "grants", "--role", "app", "--schema", "x", "--read-only")
    script = grants("app", schema="x", read_only=True)
    assert cli(*words).out == script
    assert cli(*words, "--json").json == {"role": "app", "sql": script}
    assert cli("schema", "grants", "--role", "public").code == 23
    assert cli("schema", "grants", "--role", "app", "--schema", "a b").code == 23
