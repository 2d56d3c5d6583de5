"""The floor: the raw driver with rows of our size, flushed to disk as ours are.

One table, one index, one statement in each transaction: no history, no chain, no encryption. The
SQLite floor runs without an event loop's help, on the thread that calls it.
"""

# ruff: noqa: S311 - chance picks rows here, it guards nothing

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from typing import Any, Final, Protocol

import asyncpg
from sqlalchemy import make_url

from values import name_of

__all__ = ["BODY", "Floor", "driver_url", "open_floor", "open_sqlite"]

BODY: Final = 440
"""Bytes of a row beside its name: the size of an event with a 200-byte value."""
_PAGE: Final = 5_000
_INSERT: Final = "INSERT INTO floor (name, body) VALUES"
_DURABLE: Final = {"journal_mode": "wal", "synchronous": 2}


class Floor(Protocol):
    """A table of (position, name, body) in one of the databases."""

    async def fill(self, rows: int) -> None:
        """Write `rows` rows, quickly."""
        ...

    async def put(self) -> None:
        """Write one row in a transaction of its own."""
        ...

    async def put_batch(self, rows: int) -> None:
        """Write `rows` rows in one transaction."""
        ...

    async def get(self) -> None:
        """Read one row by its name."""
        ...

    async def list(self) -> int:
        """Read every name, in the order of names. Returns their number."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


async def open_floor(url: str, first: int = 0) -> Floor:
    """Open the floor on the database that a ledger's URL names.

    Its rows are numbered from `first`, so that several floors can share a table.
    """
    if make_url(url).get_backend_name() == "sqlite":
        return SqliteFloor(make_url(url).database or "", first)
    connection = await asyncpg.connect(driver_url(url))
    floor = PostgresqlFloor(connection, first)
    await floor.prepare()
    return floor


def driver_url(url: str) -> str:
    """Return a ledger's URL as asyncpg takes it."""
    return url.replace("postgresql+asyncpg:", "postgresql:", 1)


def open_sqlite(path: str) -> sqlite3.Connection:
    """Open a connection that is as durable as a ledger's. Raises RuntimeError if it is not."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    found = [connection.execute(f"PRAGMA {each}").fetchone()[0] for each in _DURABLE]
    if found != list(_DURABLE.values()):
        raise RuntimeError(f"the SQLite connection is not durable: {found}")
    return connection


class _Rows:
    """Names in order, none twice, and bodies that don't compress."""

    def __init__(self, first: int) -> None:
        self._first = self.count = first
        self._body = random.randbytes(BODY)

    def make(self, rows: int) -> list[tuple[str, bytes]]:
        first = self.count
        self.count += rows
        return [(name_of(n), self._body) for n in range(first, first + rows)]

    def some_name(self) -> str:
        return name_of(random.randrange(self._first, self.count))


class SqliteFloor:
    """The sqlite3 module, in WAL mode with synchronous=FULL."""

    def __init__(self, path: str, first: int) -> None:
        self._connection = open_sqlite(path)
        self._rows = _Rows(first)
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS floor (position INTEGER PRIMARY KEY,"
            " name TEXT NOT NULL UNIQUE, body BLOB NOT NULL)"
        )

    async def fill(self, rows: int) -> None:
        await self.put_batch(rows)

    async def put(self) -> None:
        self._connection.execute(f"{_INSERT} (?, ?)", self._rows.make(1)[0])

    async def put_batch(self, rows: int) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(f"{_INSERT} (?, ?)", self._rows.make(rows))
        self._connection.execute("COMMIT")

    async def get(self) -> None:
        name = self._rows.some_name()
        self._connection.execute("SELECT * FROM floor WHERE name = ?", (name,)).fetchone()

    async def list(self) -> int:
        names = self._connection.execute("SELECT name, position FROM floor ORDER BY name")
        return sum(1 for _ in names)

    async def close(self) -> None:
        self._connection.close()


class PostgresqlFloor:
    """One asyncpg connection with its default settings."""

    def __init__(self, connection: Any, first: int) -> None:
        self._connection = connection
        self._rows = _Rows(first)

    async def prepare(self) -> None:
        await self._connection.execute(
            "CREATE TABLE IF NOT EXISTS floor ("
            "position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            ' name text COLLATE "C" NOT NULL UNIQUE, body bytea NOT NULL)'
        )

    async def fill(self, rows: int) -> None:
        for _ in range(0, rows, _PAGE):
            await self.put_batch(min(_PAGE, rows - self._rows.count))

    async def put(self) -> None:
        await self._connection.execute(f"{_INSERT} ($1, $2)", *self._rows.make(1)[0])

    async def put_batch(self, rows: int) -> None:
        made: Sequence[tuple[str, bytes]] = self._rows.make(rows)
        await self._connection.execute(
            "INSERT INTO floor (name, body) SELECT * FROM unnest($1::text[], $2::bytea[])",
            [name for name, _ in made],
            [body for _, body in made],
        )

    async def get(self) -> None:
        name = self._rows.some_name()
        await self._connection.fetchrow("SELECT * FROM floor WHERE name = $1", name)

    async def list(self) -> int:
        return len(await self._connection.fetch("SELECT name, position FROM floor ORDER BY name"))

    async def close(self) -> None:
        await self._connection.close()
