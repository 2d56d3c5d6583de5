"""The floor: what the raw driver does with rows of our size, flushed to disk as ours are.

One table, one index, one statement a transaction: no history, no chain, no encryption. The
SQLite one runs without an event loop's help, on the thread that calls it.
"""

# ruff: noqa: S311 - chance picks rows here, it guards nothing

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from typing import Any, Final, Protocol

import asyncpg
from sqlalchemy import make_url

__all__ = ["BODY", "Floor", "driver_url", "open_floor"]

BODY: Final = 440
"""Bytes of a row beside its name: what an event of a 200-byte value takes."""
_PAGE: Final = 5_000
_INSERT: Final = "INSERT INTO floor (name, body) VALUES"


class Floor(Protocol):
    """A table of (position, name, body) in one of the databases."""

    async def fill(self, rows: int) -> None:
        """Write that many rows, quickly."""
        ...

    async def put(self) -> None:
        """Write one row in a transaction of its own."""
        ...

    async def put_batch(self, rows: int) -> None:
        """Write that many rows in one transaction."""
        ...

    async def get(self) -> None:
        """Read one row by its name."""
        ...

    async def scan(self) -> int:
        """Read every row in order of position; how many there were."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


async def open_floor(url: str) -> Floor:
    """The floor of the kind that a ledger's URL names, in an empty database."""
    if make_url(url).get_backend_name() == "sqlite":
        return SqliteFloor(make_url(url).database or "")
    connection = await asyncpg.connect(driver_url(url))
    floor = PostgresqlFloor(connection)
    await floor.prepare()
    return floor


def driver_url(url: str) -> str:
    """A ledger's URL as asyncpg takes it."""
    return url.replace("postgresql+asyncpg:", "postgresql:")


class _Rows:
    """Names in order, none twice, and bodies that don't compress."""

    def __init__(self) -> None:
        self.count = 0
        self._body = random.randbytes(BODY)

    def make(self, rows: int) -> list[tuple[str, bytes]]:
        first = self.count
        self.count += rows
        return [(self.name(n), self._body) for n in range(first, first + rows)]

    def name(self, number: int) -> str:
        return f"tenant-{number % 50:02}/source-{number:07}/key"

    def some_name(self) -> str:
        return self.name(random.randrange(self.count))


class SqliteFloor:
    """The sqlite3 module, in WAL mode with synchronous=FULL."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._rows = _Rows()
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE floor (position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
            " body BLOB NOT NULL)"
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

    async def scan(self) -> int:
        cursor = self._connection.execute("SELECT * FROM floor ORDER BY position")
        done = 0
        while rows := cursor.fetchmany(_PAGE):
            done += len(rows)
        return done

    async def close(self) -> None:
        self._connection.close()


class PostgresqlFloor:
    """One asyncpg connection, as it comes."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._rows = _Rows()

    async def prepare(self) -> None:
        await self._connection.execute(
            "CREATE TABLE floor (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
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

    async def scan(self) -> int:
        done = after = 0
        while rows := await self._connection.fetch(
            "SELECT * FROM floor WHERE position > $1 ORDER BY position LIMIT $2", after, _PAGE
        ):
            done += len(rows)
            after = rows[-1]["position"]
        return done

    async def close(self) -> None:
        await self._connection.close()
