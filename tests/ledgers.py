"""Opening ledgers in tests: keys with names, refusals, and what a database holds."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from secret_ledger import Key, Keyring, LedgerError, NodeInfo, SecretLedger, open_unverified
from secret_ledger.store.address import connect
from secret_ledger.store.connection import Connection
from secret_ledger.store.schema import OUR_TABLES

OLD, NEW, THIRD, STRANGER = (
    Key.from_bytes(bytes(range(n, n + 32)), f"k-{name}")
    for n, name in enumerate(("old", "new", "third", "stranger"), start=1)
)

E = TypeVar("E", bound=LedgerError)


def opened(url: str, *keys: Key, **options: Any) -> AbstractAsyncContextManager[SecretLedger]:
    """Open with the first key as the current one, the others as previous ones."""
    return SecretLedger.open(url, Keyring.of(keys[0], keys[1:]), **options)


async def refused(url: str, kind: type[E], *keys: Key, **options: Any) -> E:
    """The error that opening ends in; exactly of that kind."""
    with pytest.raises(kind) as caught:
        async with opened(url, *keys, **options):
            pass
    assert type(caught.value) is kind
    return caught.value


async def rows(url: str, *without: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, but of those left out."""
    database = connect(url)

    def unit(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
        found: dict[str, list[tuple[Any, ...]]] = {}
        for table in sorted(database.tables(connection) - set(without)):
            query = f"SELECT * FROM {database.statements.prefix}{table}"  # noqa: S608  # its name
            found[table] = sorted((tuple(row) for row in connection.execute(text(query))), key=repr)
        return found

    try:
        return await database.run(unit, "snapshot")
    finally:
        await database.close()


async def emptied(url: str) -> None:
    """Take a ledger out of its database."""
    if url.startswith("sqlite"):
        for end in ("", "-wal", "-shm"):
            Path(file_of(url) + end).unlink(missing_ok=True)
        return
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("DROP SCHEMA IF EXISTS secret_ledger CASCADE")
    finally:
        await connection.close()


async def has_tables(url: str) -> bool:
    """Whether any of our tables is there."""
    database = connect(url)
    try:
        if not database.exists():
            return False
        found = await database.run(database.tables, "snapshot")
        return bool(found & OUR_TABLES)
    finally:
        await database.close()


async def lines(url: str) -> list[NodeInfo]:
    """The registry of nodes, as it is read without a key."""
    async with open_unverified(url) as ledger:
        return list(await ledger.nodes())


def file_of(url: str) -> str:
    """The path of a SQLite URL."""
    return make_url(url).database or ""


def open_files(name: str) -> list[str]:
    """The files that this process has open, of those whose paths begin with `name`."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found.append(str(link.readlink()))
    return [file for file in found if file.startswith(name)]
