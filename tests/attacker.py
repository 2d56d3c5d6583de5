"""Somebody with full SQL access to a ledger's database, and without its key.

Speaks to the database with plain drivers. SQL is written once, in lower case where it matters
to neither, with parameters `$1`, `$2`; on PostgreSQL the session's search path is the schema.
"""
# ruff: noqa: S608  # names of tables and columns go into the SQL

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg
from sqlalchemy.engine import make_url

from inside import EVENT_COLUMNS, Event

_PLACE = re.compile(r"\$(\d+)")

TABLES = (
    "ledger_meta",
    "ledger_head",
    "ledger_key",
    "secret_event",
    "secret_current",
    "projection_checkpoint",
)


class Attacker(Protocol):
    """One connection that nothing guards against any more."""

    async def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]: ...

    async def insert_rows(self, table: str, rows: Sequence[Sequence[object]]) -> None: ...

    async def columns(self, table: str) -> list[str]: ...

    async def loosen(self, *tables: str) -> None:
        """Take every type (SQLite), key, check and NOT NULL off these tables."""
        ...


async def events(attacker: Attacker) -> list[Event]:
    rows = await attacker.sql(
        f"SELECT {EVENT_COLUMNS} FROM secret_event ORDER BY generation, position"
    )
    return [Event._make(row) for row in rows]


async def put_back(attacker: Attacker, saved: dict[str, list[tuple[Any, ...]]]) -> None:
    """Each table as it was saved."""
    for table, rows in saved.items():
        await attacker.sql(f"DELETE FROM {table}")
        await attacker.insert_rows(table, rows)


async def saved(attacker: Attacker, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    return {t: await attacker.sql(f"SELECT * FROM {t}") for t in tables}


@asynccontextmanager
async def attacking(url: str) -> AsyncIterator[Attacker]:
    """Connect, and put triggers, checks and foreign keys out of action."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        plain = sqlite3.connect(address.database or "", isolation_level=None, timeout=30)
        try:
            plain.execute("PRAGMA foreign_keys = OFF")
            plain.execute("PRAGMA ignore_check_constraints = ON")
            triggers = plain.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            for (name,) in triggers.fetchall():
                plain.execute(f"DROP TRIGGER {name}")
            yield SqliteAttacker(plain)
        finally:
            plain.close()
        return
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("SET search_path TO secret_ledger")
        found = await connection.fetch(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'secret_ledger' AND c.relkind = 'r'"
        )
        for (table,) in found:
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
            await _drop_constraints(connection, table, "cf")
        yield PostgresqlAttacker(connection)
    finally:
        await connection.close()


async def _drop_constraints(connection: Any, table: str, kinds: str) -> None:
    # Foreign keys first: they hang on the unique constraints of the other table.
    found = await connection.fetch(
        "SELECT conname FROM pg_constraint WHERE conrelid = $1::regclass"
        " AND contype::text = ANY($2) ORDER BY array_position(ARRAY['f', 'p', 'u'], contype::text)",
        table,
        list(kinds),
    )
    for (name,) in found:
        await connection.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}" CASCADE')


class SqliteAttacker:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        await asyncio.sleep(0)
        named = {f"p{number}": value for number, value in enumerate(values, 1)}
        return self._connection.execute(_PLACE.sub(r":p\1", statement), named).fetchall()

    async def insert_rows(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        columns = await self.columns(table)
        for row in rows:
            names, marks = ", ".join(columns[: len(row)]), ", ".join("?" * len(row))
            self._connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row))

    async def columns(self, table: str) -> list[str]:
        return [row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")]

    async def loosen(self, *tables: str) -> None:
        for table in tables:
            columns = ", ".join(await self.columns(table))
            # Columns without a type take any value as it is.
            self._connection.execute(f"CREATE TABLE loose ({columns})")
            self._connection.execute(f"INSERT INTO loose SELECT {columns} FROM {table}")
            self._connection.execute("PRAGMA legacy_alter_table = ON")
            self._connection.execute(f"DROP TABLE {table}")
            self._connection.execute(f"ALTER TABLE loose RENAME TO {table}")
            if table == "ledger_head":
                self._connection.execute("DROP INDEX IF EXISTS ledger_head_one_in_use")


class PostgresqlAttacker:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self._connection.fetch(statement, *values)]

    async def insert_rows(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        for row in rows:
            marks = ", ".join(f"${i}" for i in range(1, len(row) + 1))
            await self._connection.execute(f"INSERT INTO {table} VALUES ({marks})", *row)

    async def columns(self, table: str) -> list[str]:
        rows = await self._connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0"
            " AND NOT attisdropped ORDER BY attnum",
            table,
        )
        return [row[0] for row in rows]

    async def loosen(self, *tables: str) -> None:
        for table in tables:
            await _drop_constraints(self._connection, table, "cfupn")
            for column in await self.columns(table):
                await self._connection.execute(
                    f"ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL"
                )
        if "ledger_head" in tables:
            await self._connection.execute("DROP INDEX IF EXISTS ledger_head_one_in_use")
