"""What a name in our SQL means is not for the search path to decide (PostgreSQL)."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy import make_url

from daily_use import use
from inside import qualified
from ledgers import NEW, OLD, opened, refused
from search_path import CAUGHT, plant
from secret_ledger import LedgerUnavailable


async def test_nothing_on_the_search_path_is_called_by_any_statement(postgres_url: str) -> None:
    planted = await plant(postgres_url)
    assert {"min", "max", "count", "sum", "unnest", "length", "=", "<>", "<", "bytea"} <= {*planted}
    async with opened(postgres_url, OLD) as ledger:
        await use(ledger, "first")
        await ledger.put_many({f"many/{n}": "x" for n in range(300)})
    async with opened(postgres_url, NEW, OLD, verify="incremental") as ledger:
        await ledger.rotate()
        await ledger.rekey()
        await ledger.key_history()
        await ledger.migrate()
        await ledger.purge_generation(0)
        old, _ = await ledger.key_history()
        await ledger.retire(old.key_id)
        await use(ledger, "second")
    async with opened(postgres_url, NEW, verify="full") as ledger:
        assert (await ledger.get("second/a")).value.reveal() == b"2"


async def test_a_type_with_the_name_of_one_of_postgresql_s_own_is_said(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    try:
        await connection.execute("CREATE SCHEMA bait; CREATE DOMAIN bait.text AS pg_catalog.text")
        database = make_url(postgres_url).database
        await connection.execute(f'ALTER DATABASE "{database}" SET search_path = bait, pg_catalog')
    finally:
        await connection.close()
    refusal = await refused(postgres_url, LedgerUnavailable, OLD)
    assert "a type on the search path has the name of one of PostgreSQL's own" in refusal.message
    assert not refusal.details.get("transient")


async def test_the_baits_catch_what_is_not_qualified(postgres_url: str) -> None:
    await plant(postgres_url)
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    try:
        for bare in (
            "SELECT 1 = 1",
            "SELECT min(n) FROM (VALUES ('a'::pg_catalog.text)) AS v (n)",
            "SELECT count(*) FROM (VALUES (1)) AS v (n)",
            "SELECT * FROM unnest(ARRAY[1::bigint])",
            "SELECT 1 WHERE 'a'::pg_catalog.text IN ('a', 'b')",
            "SELECT 1.5 * 1",
        ):
            with pytest.raises(asyncpg.RaiseError, match=CAUGHT):
                await connection.fetch(bare)
            await connection.fetch(qualified(bare))
        assert qualified("SELECT 'a'::text") == "SELECT 'a'::pg_catalog.text"
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("UPDATE t SET a = b = 1, c = d + 1 WHERE e = 2",
         "UPDATE t SET a = b OPERATOR(pg_catalog.=) 1, c = d OPERATOR(pg_catalog.+) 1"
         " WHERE e OPERATOR(pg_catalog.=) 2"),
        ("CREATE TABLE t (a text COLLATE \"C\", b bigint CHECK (length(a) = 1)) WITH (f = 1)",
         "CREATE TABLE t (a pg_catalog.text COLLATE pg_catalog.\"C\", b bigint"
         " CHECK (pg_catalog.length(a) OPERATOR(pg_catalog.=) 1)) WITH (f = 1)"),
        ("SELECT count(*), t.* FROM t WHERE a NOT IN (1, (2)) AND b IN (SELECT c FROM u)",
         "SELECT pg_catalog.count(*), t.* FROM t"
         " WHERE a OPERATOR(pg_catalog.<>) ALL (ARRAY[1, (2)]) AND b"
         " OPERATOR(pg_catalog.=) ANY (SELECT c FROM u)"),
        ("SELECT a LIKE 'b%', a NOT LIKE 'c'",
         "SELECT a OPERATOR(pg_catalog.~~) 'b%', a OPERATOR(pg_catalog.!~~) 'c'"),
        ("SELECT 'a = b', \"count(\", $1 * -1 -- c = d\nFROM s.count(1)",
         "SELECT 'a = b', \"count(\", $1 OPERATOR(pg_catalog.*) -1 -- c = d\nFROM s.count(1)"),
        ("SET LOCAL a = 1; INSERT INTO t (text) VALUES (CAST(:text AS text))",
         "SET LOCAL a = 1; INSERT INTO t (text) VALUES (CAST(:text AS pg_catalog.text))"),
    ],
)  # fmt: skip
def test_names_of_postgresql_s_own_get_their_schema_and_nothing_else_does(
    written: str, sent: str
) -> None:
    assert " ".join(qualified(written).split()) == " ".join(sent.split())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a LIKE 'b' ESCAPE 'c'", "SELECT a BETWEEN 1 AND 2", "SELECT a IS DISTINCT FROM b",
        "SELECT CASE a WHEN 1 THEN 2 END", "SELECT nullif(a, b)",
        "SELECT * FROM a JOIN b USING (c)",
    ],
)  # fmt: skip
def test_what_can_t_be_qualified_is_refused_before_it_is_sent(sql: str) -> None:
    with pytest.raises(ValueError, match="can't be qualified"):
        qualified(sql)
