"""A database that has stopped answering, and answers again when the block ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from inside import READERS
from secret_ledger import SecretLedger


@asynccontextmanager
async def hanging(ledger: SecretLedger, url: str) -> AsyncIterator[None]:
    """Every read of `ledger` waits: on PostgreSQL for a lock, on SQLite for its threads."""
    if ledger.database.name == "sqlite":
        free = threading.Event()
        busy = [
            asyncio.ensure_future(ledger.database.run(lambda c: free.wait(60), "statement"))
            for _ in range(READERS)
        ]
        await asyncio.sleep(0)
        try:
            yield
        finally:
            free.set()
            await asyncio.gather(*busy)
        return
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE secret_ledger.ledger_head")
            yield
    finally:
        await connection.close()


async def waiting_for_locks(url: str) -> int:
    """How many sessions of this PostgreSQL database wait for a lock."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        waiting: int = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    finally:
        await connection.close()
    return waiting
