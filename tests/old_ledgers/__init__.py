"""Ledgers that an older release wrote, kept as they were: one of each database.

`make` wrote them with the code of that time; README.md beside it says how. A test lays one into
an empty database and opens it with today's code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy.engine import make_url

from secret_ledger import Key
from secret_ledger.store.schema import steps

__all__ = ["FOLDER", "HELD", "HELD_NAMES", "KEYS", "SCHEMA", "lay"]

FOLDER: Final = Path(__file__).parent
SCHEMA: Final = 5
"""The schema version of both files."""


def _key(name: str) -> Key:
    """A key that anybody can compute again: nothing of it is stored."""
    phrase = f"old ledgers of the tests: {name}"
    return Key.from_bytes(hashlib.sha256(phrase.encode()).digest(), name)


_NAMES: Final = ("zero", "one", "two", "three", "four", "five", "stranger")
KEYS: Final = {name: _key(name) for name in _NAMES}
"""zero is retired, one and four are lost, five is active; the ledger never knew stranger."""
HELD_NAMES: Final = ("five", "three", "two")
HELD: Final = tuple(KEYS[name] for name in HELD_NAMES)
"""What a process needs to open the old ledgers, the current key first."""


async def lay(url: str) -> None:
    """Put the old ledger of that database's kind into the empty database at `url`."""
    if make_url(url).get_backend_name() == "sqlite":
        shutil.copyfile(FOLDER / "schema5.sqlite", make_url(url).database or "")
        return
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        async with connection.transaction():
            await _fill(connection, json.loads((FOLDER / "schema5.postgresql.json").read_text()))
    finally:
        await connection.close()


async def _fill(connection: Any, tables: dict[str, Any]) -> None:
    await connection.execute("CREATE SCHEMA secret_ledger")
    for number, _, statements in steps("postgresql"):
        if number <= SCHEMA:
            for statement in statements:
                await connection.execute(statement.replace("{s}", '"secret_ledger".'))
    for table, content in tables.items():
        columns = content["columns"]
        if not columns:
            continue  # a table without rows
        places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        await connection.executemany(
            f'INSERT INTO "secret_ledger".{table} ({", ".join(columns)}) VALUES ({places})',  # noqa: S608  # names of ours
            [tuple(map(_stored, row)) for row in content["rows"]],
        )


def _stored(value: object) -> object:
    """A value of the JSON file as the column takes it: bytes are written as {"hex": …}."""
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
