"""What a DBA, or another session, may have set on a PostgreSQL that holds a ledger."""
# names of databases and settings go into the SQL

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from ledgers import OLD, opened, refused
from secret_ledger import LedgerUnavailable, TamperedEvent


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Any]:
    """A plain connection of somebody else's."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


async def set_for_all(url: str, setting: str) -> None:
    async with session(url) as dba:
        await dba.execute(f'ALTER DATABASE "{make_url(url).database}" SET {setting}')


HARMLESS = [
    "default_transaction_isolation = 'serializable'",
    "default_transaction_isolation = 'repeatable read'",
    "default_transaction_deferrable = on",
    "synchronous_commit = off",
    "standard_conforming_strings = off",
    "session_replication_role = replica",
    "timezone = 'Pacific/Auckland'",
    "client_encoding = 'LATIN1'",
    "client_encoding = 'SQL_ASCII'",
    "bytea_output = 'escape'",
    "search_path = 'pg_temp'",
    "search_path = ''",
    "lock_timeout = '5s'",
    "idle_in_transaction_session_timeout = '5s'",
    "row_security = off",
    "enable_indexscan = off",
    "plan_cache_mode = force_generic_plan",
    "transform_null_equals = on",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
]


@pytest.mark.parametrize("setting", HARMLESS)
async def test_settings_of_a_database_change_nothing(postgres_url: str, setting: str) -> None:
    await set_for_all(postgres_url, setting)
    async with opened(postgres_url, OLD) as ledger:
        await ledger.put("ä/b", "wert ü\x00\\", actor="ö\x00'", metadata={"x": "\u2028\\é"})
        await asyncio.gather(*(ledger.put("ä/c", str(n)) for n in range(20)))
        got = await ledger.get("ä/b", at=(await ledger.get("ä/c")).recorded_at)
        assert got.value.reveal_text() == "wert ü\x00\\"
        assert (got.actor, got.metadata) == ("ö\x00'", {"x": "\u2028\\é"})
        await ledger.delete("ä/b")
        await ledger.restore("ä/b")
        assert (await ledger.verify("full")).ok


async def test_an_append_is_durable_whatever_the_database_s_default(postgres_url: str) -> None:
    """The trigger sees the setting that the transaction commits under."""
    await set_for_all(postgres_url, "synchronous_commit = off")
    async with opened(postgres_url, OLD) as ledger, session(postgres_url) as dba:
        await dba.execute(
            "CREATE TABLE seen (setting text); CREATE FUNCTION look() RETURNS trigger"
            " LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen"
            " VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;"
            " CREATE TRIGGER look AFTER INSERT ON secret_ledger.secret_event"
            " FOR EACH ROW EXECUTE FUNCTION look()"
        )
        await ledger.put("a", "1")
        assert [r[0] for r in await dba.fetch("SELECT setting FROM seen")] == ["on"]


async def test_a_read_only_database_is_said_to_be_one(postgres_url: str) -> None:
    await set_for_all(postgres_url, "default_transaction_read_only = on")
    error = await refused(postgres_url, LedgerUnavailable, OLD)
    assert "read-only" in error.message
    async with session(postgres_url) as dba:
        assert not await dba.fetch("SELECT 1 FROM pg_namespace WHERE nspname = 'secret_ledger'")


async def test_a_head_row_that_somebody_locks_holds_a_write_no_longer_than_its_patience(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, OLD, patience=0.5) as ledger, session(postgres_url) as other:
        await ledger.put("a", "1")
        locked = other.transaction()
        await locked.start()
        await other.execute("SELECT * FROM secret_ledger.ledger_head FOR UPDATE")
        with pytest.raises(LedgerUnavailable, match="holds the database's lock") as caught:
            await ledger.put("a", "2")
        assert not caught.value.outcome_unknown
        assert (await ledger.get("a")).version == 1
        await refused(postgres_url, LedgerUnavailable, OLD, patience=0.5)
        await locked.rollback()
        assert (await ledger.put("a", "2")).version == 2


async def test_a_lock_that_is_given_up_in_time_costs_a_write_nothing(postgres_url: str) -> None:
    async with opened(postgres_url, OLD, patience=60) as ledger, session(postgres_url) as other:
        locked = other.transaction()
        await locked.start()
        await other.execute("SELECT * FROM secret_ledger.ledger_head FOR UPDATE")
        writing = asyncio.ensure_future(ledger.put("a", "1"))
        while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            pass
        await locked.rollback()
        assert (await writing).version == 1


async def test_a_timeout_in_the_middle_of_an_append_writes_nothing_or_all(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, OLD) as ledger:
        await ledger.put("a", "1")
    await set_for_all(postgres_url, "statement_timeout = '300ms'")
    async with session(postgres_url) as dba:
        await dba.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN IF NEW.stream = 'slow' THEN PERFORM pg_sleep(30); END IF;"
            " RETURN NEW; END $$;"
            " CREATE TRIGGER slow AFTER INSERT ON secret_ledger.secret_event"
            " FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    async with opened(postgres_url, OLD, patience=0.5) as ledger:
        with pytest.raises(LedgerUnavailable):
            await ledger.put_many({"b": "x", "slow": "y"})
        assert (await ledger.put("a", "2", expect=1)).version == 2
        assert [info.name async for info in ledger.list()] == ["a"]
    async with opened(postgres_url, OLD, verify="full"):
        pass


async def test_no_free_connection_is_a_typed_error_and_writes_go_on_afterwards(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, OLD, patience=0.5) as ledger, session(postgres_url) as dba:
        await ledger.put("a", "1")
        role = f"limited_{uuid.uuid4().hex}"
        name = make_url(postgres_url).database
        await dba.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')
        await dba.execute(f"CREATE ROLE {role} LOGIN")
        await dba.execute(
            f"GRANT USAGE ON SCHEMA secret_ledger TO {role};"
            f" GRANT ALL ON ALL TABLES IN SCHEMA secret_ledger TO {role}"
        )
        url = make_url(postgres_url).set(username=role).render_as_string(hide_password=False)
        error = await refused(url, LedgerUnavailable, OLD, patience=0.1)
        assert error.details["sqlstate"] == "53300"
        await dba.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1')
        async with opened(url, OLD) as as_role:
            assert (await as_role.put("a", "2")).version == 2
        await dba.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_rows_that_a_policy_hides_are_missing_rows(postgres_url: str) -> None:
    async with opened(postgres_url, OLD) as ledger:
        await ledger.put("shown", "1")
        await ledger.put("hidden", "1")
    role = f"restricted_{uuid.uuid4().hex}"
    async with session(postgres_url) as dba:
        await dba.execute(
            f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA secret_ledger TO {role};"
            f" GRANT ALL ON ALL TABLES IN SCHEMA secret_ledger TO {role};"
            " ALTER TABLE secret_ledger.secret_event ENABLE ROW LEVEL SECURITY;"
            " CREATE POLICY shown ON secret_ledger.secret_event USING (stream <> 'hidden')"
        )
        url = make_url(postgres_url).set(username=role).render_as_string(hide_password=False)
        try:
            await refused(url, TamperedEvent, OLD)
            for table in ("ledger_head", "ledger_meta", "ledger_key"):
                await dba.execute(
                    "ALTER TABLE secret_ledger.secret_event DISABLE ROW LEVEL SECURITY;"
                    f" ALTER TABLE secret_ledger.{table} ENABLE ROW LEVEL SECURITY"
                )
                await refused(url, TamperedEvent, OLD)
                await dba.execute(f"ALTER TABLE secret_ledger.{table} DISABLE ROW LEVEL SECURITY")
        finally:
            await dba.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
