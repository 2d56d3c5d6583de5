"""The floor of jobs over all events: the raw driver, and AES-256-GCM of the same library.

A job reads rows of our size in pages, and writes its results into a second table, one page in each
transaction. No history, no chain, no checks.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from typing import Any, Final, Protocol

import asyncpg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import make_url

from floors import BODY, driver_url, open_sqlite
from values import name_of

__all__ = ["SealedFloor", "filled", "open_sealed_floor"]

_PAGE: Final = 1000
_PLAIN: Final = 256
"""Bytes of a 200-byte value, padded as the ledger pads it."""
_NONCE: Final = 12
_TABLE: Final = "(position bigint PRIMARY KEY, name text NOT NULL, body {bytes} NOT NULL)"

Row = tuple[int, str, bytes]


class _Driver(Protocol):
    """The tables `source` and `target` of one database."""

    async def run(self, statement: str) -> None: ...
    async def write(self, table: str, rows: Sequence[Row]) -> None: ...
    def pages(self, after: int) -> AsyncIterator[Sequence[Row]]: ...


class SealedFloor:
    """A table of sealed rows."""

    def __init__(self, driver: _Driver, kind: str) -> None:
        self._driver = driver
        self._table = _TABLE.format(bytes=kind)
        self._old, self._new = AESGCM(bytes(32)), AESGCM(bytes(range(32)))

    async def fill(self, rows: int) -> None:
        """Write `rows` rows."""
        await self._driver.run(f"CREATE TABLE source {self._table}")
        value = os.urandom(_PLAIN)
        for first in range(1, rows + 1, _PAGE):
            page = range(first, min(first + _PAGE, rows + 1))
            await self._driver.write(
                "source", [(n, name_of(n), _sealed(self._old, value)) for n in page]
            )

    async def open_all(self) -> int:
        """Read and open every row. Returns their number."""
        done = 0
        async for page in self._driver.pages(0):
            for _, _, body in page:
                _opened(self._old, body)
            done += len(page)
        return done

    async def hash(self, after: int) -> int:
        """Read and hash every row after position `after`. Returns their number."""
        done = 0
        async for page in self._driver.pages(after):
            for _, _, body in page:
                sha256(body).digest()
            done += len(page)
        return done

    async def empty_target(self) -> None:
        """Drop the second table, and create it again."""
        await self._driver.run("DROP TABLE IF EXISTS target")
        await self._driver.run(f"CREATE TABLE target {self._table}")

    async def reseal(self, after: int) -> int:
        """Seal rows after position `after` again, into the second table. Returns their number."""
        done = 0
        async for page in self._driver.pages(after):
            await self._driver.write(
                "target",
                [(at, name, _sealed(self._new, _opened(self._old, b))) for at, name, b in page],
            )
            done += len(page)
        return done

    async def fold(self, after: int) -> int:
        """Read every row, and write the names after position `after`. Returns their number."""
        done = 0
        async for page in self._driver.pages(0):
            heads = [(at, name, b"") for at, name, _ in page if at > after]
            await self._driver.write("target", heads)
            done += len(heads)
        return done


def _sealed(key: AESGCM, plain: bytes) -> bytes:
    """As large as an event of ours: nonce, ciphertext and tag, and zeros for its clear columns."""
    nonce = os.urandom(_NONCE)
    sealed = nonce + key.encrypt(nonce, plain, None)
    return sealed + bytes(BODY - len(sealed))


def _opened(key: AESGCM, body: bytes) -> bytes:
    return key.decrypt(body[:_NONCE], body[_NONCE : _NONCE + _PLAIN + 16], None)


@asynccontextmanager
async def open_sealed_floor(url: str) -> AsyncIterator[SealedFloor]:
    """Open the floor on the database that a ledger's URL names."""
    async with AsyncExitStack() as stack:
        if make_url(url).get_backend_name() == "sqlite":
            connection = open_sqlite(make_url(url).database or "")
            stack.callback(connection.close)
            yield SealedFloor(_Sqlite(connection), "blob")
        else:
            connected = await asyncpg.connect(driver_url(url))
            stack.push_async_callback(connected.close)
            yield SealedFloor(_Postgresql(connected), "bytea")


@asynccontextmanager
async def filled(url: str, rows: int) -> AsyncIterator[SealedFloor]:
    """Open the floor on an empty database, and write `rows` rows."""
    async with open_sealed_floor(url) as floor:
        await floor.fill(rows)
        yield floor


_SELECT: Final = "SELECT position, name, body FROM source WHERE position > {} ORDER BY position"


class _Sqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def run(self, statement: str) -> None:
        self._connection.execute(statement)

    async def write(self, table: str, rows: Sequence[Row]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)  # noqa: S608
        self._connection.execute("COMMIT")

    async def pages(self, after: int) -> AsyncIterator[Sequence[Row]]:
        statement = f"{_SELECT.format('?')} LIMIT {_PAGE}"
        while page := self._connection.execute(statement, (after,)).fetchall():
            yield page
            after = page[-1][0]


class _Postgresql:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def run(self, statement: str) -> None:
        await self._connection.execute(statement)

    async def write(self, table: str, rows: Sequence[Row]) -> None:
        # COPY is the quickest way that the driver has.
        await self._connection.copy_records_to_table(table, records=rows)

    async def pages(self, after: int) -> AsyncIterator[Sequence[Row]]:
        statement = f"{_SELECT.format('$1')} LIMIT {_PAGE}"
        while page := await self._connection.fetch(statement, after):
            yield page
            after = page[-1]["position"]
