"""How much an append writes to the disk, counted: docs/decisions/physical-schema.md."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from ledgers import OLD, file_of, opened

PAGE_WITH_ITS_HEADER = 4096 + 24
WRITES = 60


async def test_a_write_of_one_secret_puts_six_pages_into_the_wal_of_sqlite(
    sqlite_url: str,
) -> None:
    """Five tables and indexes, and now and then a new page."""
    names = [f"app/{number:03}/password" for number in range(200)]
    async with opened(sqlite_url, OLD, heartbeat=3600) as ledger:
        await ledger.put_many(dict.fromkeys(names, "x" * 200))
        wal = Path(file_of(sqlite_url) + "-wal")
        for kind in (names[:WRITES], [f"new/{name}" for name in names[:WRITES]]):
            with closing(sqlite3.connect(file_of(sqlite_url))) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert wal.stat().st_size == 0
            for name in kind:
                await ledger.put(name, "y" * 200)
            assert wal.stat().st_size // PAGE_WITH_ITS_HEADER <= 6 * WRITES
