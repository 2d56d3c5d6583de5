"""Writes the two files of this folder; its argument is the URL of an empty PostgreSQL database.

What it writes has the schema and the format of the code that it runs with, so the files of
schema 5 come from commit 0df5b88 and are not made again.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import asyncpg

from old_ledgers import FOLDER, HELD_NAMES, KEYS
from secret_ledger import Key, KeyFingerprintMismatch, Keyring, SecretLedger

_TABLES: Final = (
    "ledger_meta", "ledger_head", "ledger_key", "secret_event", "ledger_node", "secret_current",
    "projection_checkpoint", "ledger_move", "ledger_attestation",
)  # fmt: skip
_NOWHERE: Final = "UPDATE {s}ledger_node SET host = 'host.example', pid = 4242"


def _opened(url: str, *names: str, **options: Any) -> Any:
    keys: list[Key] = [KEYS[name] for name in names]
    return SecretLedger.open(url, Keyring.of(keys[0], keys[1:]), node="node-a", **options)


async def _write_history(url: str) -> None:
    """Every kind of event and of damage to a key that a ledger of schema 5 can have."""
    async with _opened(url, "zero") as ledger:
        await ledger.put("first/kept", "from the very first key", actor="alice")
        await ledger.put("first/kept", "and again", actor="bob", metadata={"ticket": 7})
    async with _opened(url, "one", "zero") as ledger:
        await ledger.rotate(actor="operator")
        await ledger.rekey(actor="operator")
        await ledger.put("app/versions", "one")
        await ledger.put("app/versions", "two", actor="alice")
        await ledger.put("app/deleted", "deleted later")
        await ledger.delete("app/deleted", actor="carol")
        await ledger.put("app/restored", "comes back")
        await ledger.delete("app/restored")
        await ledger.restore("app/restored", actor="carol")
        await ledger.put("app/destroyed", "one")
        await ledger.put("app/destroyed", "two")
        await ledger.destroy("app/destroyed", reason="leaked", actor="dan")
        await ledger.put("app/anew", "before its end")
        await ledger.destroy("app/anew", reason="leaked")
        await ledger.put("app/anew", "after its end")
        await ledger.put("app/empty", "")
        await ledger.put("app/größe", "ein Name außerhalb von ASCII")
        await ledger.migrate()  # generation 1, under key one
        await ledger.purge_generation(0)
        await ledger.retire("zero", actor="operator")
        await ledger.put("early/head", "goes with key one")
        await ledger.put("early/deleted", "goes with key one")
        await ledger.delete("early/deleted")
        await ledger.put("early/older", "the older version goes with key one")
    async with _opened(url, "two", "one") as ledger:
        await ledger.rotate()
        for name in ("app/versions", "app/restored", "app/anew", "early/older", "first/kept"):
            await ledger.put(name, f"{name} under key two", actor="alice")
        for name in ("app/deleted", "app/destroyed"):
            await ledger.put(name, "begun again", expect=await _newest(ledger, name))
        for name in ("app/empty", "app/größe"):
            await ledger.put(name, "under key two")
    async with _opened(url, "two", verify="control") as ledger:
        await ledger.lost("one", reason="the device was destroyed", actor="operator")
        await ledger.migrate()  # generation 2: what lay under key one is purged there
        await ledger.purge_generation(1)
        await ledger.put("app/versions", "in generation 2")
        await ledger.delete("app/deleted", actor="carol")
    async with _opened(url, "three", "two") as ledger:
        await ledger.rotate()
        await ledger.rekey(actor="operator")
        await ledger.put("app/versions", "under key three")
        await ledger.migrate()  # generation 3; generation 2 stays closed
        await ledger.put("app/versions", "in generation 3")
        await ledger.put("app/large", "large " * 3_000)
    async with _opened(url, "four", "three", "two") as ledger:
        await ledger.rotate()
        await ledger.put("late/head", "goes with key four")
        await ledger.put("late/deleted", "goes with key four")
        await ledger.delete("late/deleted")
        await ledger.put("late/older", "the older version goes with key four")
    async with _opened(url, "five", "four", "three", "two") as ledger:
        await ledger.rotate()
        await ledger.put("late/older", "under key five")
    async with _opened(url, *HELD_NAMES, verify="control") as ledger:
        await ledger.lost("four", reason="the device was destroyed", actor="operator")
        await ledger.put("app/versions", "under key five", actor="alice")
        await ledger.delete("app/restored", actor="carol")
    try:
        async with _opened(url, "stranger"):
            pass
    except KeyFingerprintMismatch:
        return  # a line among the nodes tells of it
    raise AssertionError("a key that the ledger does not know was taken")


async def _newest(ledger: SecretLedger, name: str) -> int:
    return max([s.version async for s in ledger.history(name)])


async def _make_sqlite(path: Path) -> None:
    url = f"sqlite+aiosqlite:///{path}"
    await _write_history(url)
    target = FOLDER / "schema5.sqlite"
    target.unlink(missing_ok=True)
    async with _opened(url, *HELD_NAMES, verify="full"):  # its line among the nodes stays
        source, copy = sqlite3.connect(path), sqlite3.connect(target)
        source.backup(copy)
        source.close()
        copy.execute(_NOWHERE.replace("{s}", ""))
        copy.commit()
        copy.execute("PRAGMA journal_mode = WAL")
        copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        copy.close()


async def _make_postgresql(url: str) -> None:
    await _write_history(url)
    async with _opened(url, *HELD_NAMES, verify="full"):
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            await connection.execute(_NOWHERE.replace("{s}", "secret_ledger."))
            content = {table: await _rows(connection, table) for table in _TABLES}
        finally:
            await connection.close()
    (FOLDER / "schema5.postgresql.json").write_text(
        "{" + ",\n".join(f'"{table}":{_line_a_row(**content[table])}' for table in _TABLES) + "}\n"
    )


def _line_a_row(columns: list[str], rows: list[list[object]]) -> str:
    lines = ",\n".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in rows)
    return f'{{"columns":{json.dumps(columns)},"rows":[\n{lines}]}}'


async def _rows(connection: Any, table: str) -> dict[str, Any]:
    rows = await connection.fetch(f"SELECT * FROM secret_ledger.{table} ORDER BY 1, 2")  # noqa: S608  # names of ours
    return {
        "columns": list(rows[0].keys()) if rows else [],
        "rows": [[_written(value) for value in row] for row in rows],
    }


def _written(value: object) -> object:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


async def _make(postgresql_url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await _make_sqlite(Path(folder) / "made.sqlite")
    await _make_postgresql(postgresql_url)


if __name__ == "__main__":
    asyncio.run(_make(sys.argv[1]))
