"""Plain SQL on a ledger's database, with triggers and foreign keys disabled meanwhile.

Unlike `attacker`, this leaves the schema as it was: so a check finds the edit, and not its tool.
"""
# ruff: noqa: S608  # names of tables and columns go into the SQL

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import asyncpg
from sqlalchemy.engine import make_url

__all__ = ["PRIMARY_KEYS", "Constraint", "Row", "Tampering", "tampering"]

Row = dict[str, Any]

PRIMARY_KEYS = {
    "ledger_meta": ("only_row",),
    "ledger_head": ("generation",),
    "ledger_key": ("key_id",),
    "secret_event": ("generation", "position"),
    "ledger_node": ("node_id",),
    "secret_current": ("generation", "name"),
    "projection_checkpoint": ("projection", "generation"),
    "ledger_move": ("generation",),
    "ledger_attestation": ("generation",),
    "ledger_wrap": ("key_fingerprint", "wrap_hash"),
}
"""The primary key of every table of a ledger. If the database has another table, `cases` fails."""


class Constraint(Exception):
    """A check or a key of the database refuses the edit."""


class Tampering(Protocol):
    """Edits one database, and puts everything back."""

    async def rows(self, table: str) -> list[Row]: ...

    async def tables(self) -> list[str]: ...

    async def replace(self, table: str, old: Sequence[Row], new: Sequence[Row]) -> None:
        """Delete rows `old` and insert rows `new`, in one transaction. Raises Constraint."""
        ...

    async def keep(self) -> None:
        """Remember the rows of every table."""
        ...

    async def put_back(self) -> None:
        """Restore every table as `keep` remembered it."""
        ...

    async def close(self) -> None: ...


async def tampering(url: str) -> Tampering:
    """Connect to the database of a ledger that nobody has open."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        return _Sqlite(Path(address.database or ""))
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute("SET search_path TO secret_ledger")
    await connection.execute("SET session_replication_role = replica")  # no foreign keys
    return _Postgresql(connection)


class _Sqlite:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept = file.with_suffix(".kept")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, isolation_level=None, timeout=30)
        connection.row_factory = sqlite3.Row
        return connection

    async def rows(self, table: str) -> list[Row]:
        connection = self._connect()
        try:
            found = connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            return [dict(row) for row in found]
        finally:
            connection.close()

    async def tables(self) -> list[str]:
        connection = self._connect()
        try:
            found = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
            return [row["name"] for row in found]
        finally:
            connection.close()

    async def replace(self, table: str, old: Sequence[Row], new: Sequence[Row]) -> None:
        connection = self._connect()
        try:
            made = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
            triggers = connection.execute(made, (table,)).fetchall()
            connection.execute("BEGIN IMMEDIATE")
            for trigger in triggers:
                connection.execute(f"DROP TRIGGER {trigger['name']}")
            for row in old:
                where = " AND ".join(f"{name} = :{name}" for name in PRIMARY_KEYS[table])
                connection.execute(f"DELETE FROM {table} WHERE {where}", row)
            for row in new:
                marks = ", ".join(f":{name}" for name in row)
                connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", row)
            for trigger in triggers:
                connection.execute(trigger["sql"])
            connection.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            raise Constraint(str(error)) from None
        finally:
            connection.close()

    async def keep(self) -> None:
        connection = self._connect()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        shutil.copy(self._file, self._kept)

    async def put_back(self) -> None:
        for suffix in ("-wal", "-shm"):
            Path(f"{self._file}{suffix}").unlink(missing_ok=True)
        # Overwrites the same file, which a host would not do: nobody has it open.
        shutil.copy(self._kept, self._file)

    async def close(self) -> None:
        pass


class _Postgresql:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._kept: dict[str, list[Row]] = {}

    async def rows(self, table: str) -> list[Row]:
        return [
            dict(row)
            for row in await self._connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")
        ]

    async def tables(self) -> list[str]:
        found = await self._connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'secret_ledger'"
        )
        return [row["tablename"] for row in found]

    async def replace(self, table: str, old: Sequence[Row], new: Sequence[Row]) -> None:
        found = await self._connection.fetch(
            "SELECT tgname FROM pg_trigger"
            " WHERE tgrelid = $1::regclass AND NOT tgisinternal AND tgenabled = 'A'",
            f"secret_ledger.{table}",
        )
        guards = [row["tgname"] for row in found]
        try:
            async with self._connection.transaction():
                for guard in guards:
                    await self._connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {guard}")
                for row in old:
                    names = PRIMARY_KEYS[table]
                    where = " AND ".join(f"{name} = ${i}" for i, name in enumerate(names, 1))
                    await self._connection.execute(
                        f"DELETE FROM {table} WHERE {where}", *(row[name] for name in names)
                    )
                await self._insert(table, new)
                for guard in guards:
                    await self._connection.execute(
                        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {guard}"
                    )
        except asyncpg.IntegrityConstraintViolationError as error:
            raise Constraint(type(error).__name__) from None

    async def _insert(self, table: str, rows: Sequence[Row]) -> None:
        if not rows:
            return
        names = list(rows[0])
        marks = ", ".join(f"${i}" for i in range(1, len(names) + 1))
        await self._connection.executemany(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})",
            [tuple(row[name] for name in names) for row in rows],
        )

    async def keep(self) -> None:
        self._kept = {table: await self.rows(table) for table in await self.tables()}

    async def put_back(self) -> None:
        for table, kept in self._kept.items():
            now = await self.rows(table)
            if now != kept:
                await self.replace(table, now, kept)

    async def close(self) -> None:
        await self._connection.close()
